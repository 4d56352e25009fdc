-- Why a claim is lost, included by scripts.py where one is used: to a newer message, whose claim marks the older one in the
-- history (load.lua), or to anything else, such as a failover.
local function loss(state, replies, id)
  local claim = state.c
  if claim and claim[1] ~= id then return OVERTAKEN end
  return is_unanswered(redis.call('HGET', replies, id)) and OVERTAKEN or LOST
end
