-- Why a claim is lost, included by scripts.py where one is used: to a newer message, whose claim marks the older one in the
-- history (load.lua), or to anything else, such as a failover, which may bring the claim of an older message back.
local function loss(state, replies, id)
  if state.c and state.c[1] == id then return LOST end
  return is_unanswered(redis.call('HGET', replies, id)) and OVERTAKEN or LOST
end
