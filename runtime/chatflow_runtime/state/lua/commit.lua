-- Purpose: commit a turn: scene, memory, history, reply, deadline, records and wake-up, all or nothing.
-- KEYS: 1 conversation, 2 history, 3 replies by message id, 4 outbox, 5 due users, 6 records; where a webhook is told:
--   7 hooks, 8 dead letters
-- ARGV: 1 now in ms or '', 2 message id, 3 owner token, 4 revision loaded, 5 event, 6 memory,
--   7 reply as the history keeps it, '' for none, 8 reply as the outbox keeps it, 9 uid, 10 wake-up channel;
--   where a webhook is told: whose it is, the delivery, id of the handoff that lasts from now on or '', work channel,
--   partition; then records; 6, 7, 8, the delivery and records are opaque
-- Returns: {DONE, outbox id, revision} | {LOST} | {OVERTAKEN} when a newer message has the claim, or had
--   | {TOO_NEW, schema}
-- Complexity: O(waiters + records); every TIDY turns O(TIDY) to drop old replies,
--   every OUTBOX turns O(OUTBOX) to drop forgotten message ids.
-- Time: the server's, unless given; stream ids are the server's always.
local now = time_ms(ARGV[1])
local id, uid = ARGV[2], ARGV[9]
local state = read(KEYS[1])
if state.v > SCHEMA then return {TOO_NEW, state.v} end
if not owns(state, id, ARGV[3]) then return {loss(state, KEYS[3], id)} end
if state.r ~= tonumber(ARGV[4]) then return {LOST} end

local said = state.c[4]
if ARGV[7] == '' then
  if said ~= '' then push(KEYS[2], said) end
elseif said == '' then
  push(KEYS[2], ARGV[7])
else
  push(KEYS[2], said, ARGV[7])
end

local at = redis.call('XADD', KEYS[4], '*', 'r', ARGV[8])
state.r = state.r + 1
redis.call('HSET', KEYS[3], id, state.r .. ':' .. at)
if state.r % TIDY == 0 then
  redis.call('XTRIM', KEYS[4], 'MAXLEN', OUTBOX)
  if state.r % OUTBOX == 0 then
    local seen = redis.call('HGETALL', KEYS[3])
    for i = 1, #seen, 2 do
      if is_forgotten(seen[i + 1], state) then redis.call('HDEL', KEYS[3], seen[i]) end
    end
  end
end

state.s = next_scene(state.s, ARGV[5])
state.m, state.c, state.n = ARGV[6], nil, nil
if state.s == 'end' then
  state.d, state.e = 0, nil
  redis.call('ZREM', KEYS[5], uid)
else
  state.d = now + TTL_MS
  local due = state.d - NOTICE_MS
  -- An earlier entry may stay: settle.lua looks at the deadline itself. That saves one write in nearly every turn.
  if not state.e or state.e > due then
    state.e = due
    redis.call('ZADD', KEYS[5], due, uid)
  end
end
local rest = 11
if KEYS[7] then
  tell(KEYS[7], KEYS[8], ARGV[14], ARGV[15], 'k', ARGV[11], 'u', uid, 'd', ARGV[12])
  if ARGV[13] ~= '' and state.s == 'handoff' then state.h = ARGV[13] end
  rest = 16
end
for i = rest, #ARGV do redis.call('XADD', KEYS[6], 'MAXLEN', '~', RECORDS, '*', 'd', ARGV[i]) end
local is_stale = now - state.x > REFRESH_MS
if is_stale then state.x = now end
write(KEYS[1], state)
if is_stale then
  for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], KEEP_MS) end
end
redis.call('PUBLISH', ARGV[10], uid)
return {DONE, at, state.r}
