-- What became of a message id, included by scripts.py where the replies by message id are used: '<revision>:<outbox id>'
-- once it is answered, '<revision>:u<generation>' while it stands unanswered in that generation's history.
-- Ids are forgotten after OUTBOX turns, when their replies may be gone.
local function is_forgotten(value, state)
  return tonumber(string.match(value, '^%d+')) <= state.r - OUTBOX
end

local function is_unanswered(value)
  return value and string.match(value, ':u(%d+)$')
end

-- The outbox id of the reply to a message, as long as the outbox holds it.
local function reply_at(replies, outbox, id)
  local seen = redis.call('HGET', replies, id)
  local at = seen and string.match(seen, ':(%d+%-%d+)$')
  return at and redis.call('XRANGE', outbox, at, at)[1] and at
end
