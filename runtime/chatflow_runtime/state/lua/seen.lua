-- What became of a message id, included by scripts.py where the replies by message id are used: '<revision>:<outbox id>'
-- once it is answered, '<revision>:u<generation>' while it stands unanswered in that generation's history.
-- Ids are forgotten after OUTBOX turns, when their replies may be gone.
local function is_forgotten(value, state)
  return tonumber(string.match(value, '^%d+')) <= state.r - OUTBOX
end
