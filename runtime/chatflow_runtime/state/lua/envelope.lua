-- The conversation's value, included by scripts.py in every script that reads or writes one.
-- A msgpack map with short names, because it is written twice a turn:
--   v  schema                       r  revision (committed turns)      s  scene
--   d  deadline, ms (0: none)       n  1 once the closing notice is out
--   e  time of the user's entry among the due, ms: never later than needed while there is a deadline
--   m  memory (opaque bytes)        g  generation: grows when a conversation starts afresh
--   x  when a commit last set the expiry of this key and those beside it, ms; once in REFRESH_MS is enough, since they
--      outlive the deadline by more than that
--   c  claim: {message id, owner, end of the lease in ms, history entry or '' when the history holds it already}
--   h  the handoff that lasts, its id
--   q  waiting messages, first come first: {message id, end of its place in ms, message id, ...}
-- A value of an older schema lacks fields; they take the values of a new conversation. Callers refuse a newer one.
local function read(key)
  local raw = redis.call('GET', key)
  local state = raw and cmsgpack.unpack(raw) or {}
  if state.v ~= SCHEMA then
    state.v = state.v or (raw and 0 or SCHEMA)
    state.r = state.r or 0
    state.s = state.s or FIRST_SCENE
    state.d = state.d or 0
    state.m = state.m or ''
    state.g = state.g or 0
    state.x = state.x or 0
  end
  return state, raw
end

local function write(key, state)
  state.v = SCHEMA
  redis.call('SET', key, cmsgpack.pack(state), 'KEEPTTL')
end

local function owns(state, message_id, owner)
  local claim = state.c
  return claim and claim[1] == message_id and claim[2] == owner
end
