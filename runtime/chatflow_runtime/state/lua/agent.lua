-- Purpose: say something in the place of the bot, or give the conversation back to it, once however often it is asked
--   for, and only while a handoff lasts. A turn that began meanwhile is decided anew after a return: the bot answers it.
-- KEYS: 1 conversation, 2 history, 3 replies by message id, 4 outbox, 5 due users, 6 hooks, 7 dead letters
-- ARGV: 1 now in ms or '', 2 uid, 3 by what it is remembered, 4 event that ends the handoff, or '', 5 words as the history
--   keeps them (opaque), or '', 6 notice (opaque), 7 wake-up channel, 8 whose webhook, 9 delivery of the end (opaque),
--   10 work channel, 11 partition, 12 the handoff that is meant, or ''
-- Returns: {DONE, outbox id} | {ANSWERED, outbox id} | {GONE, scene} | {TOO_NEW, schema}
-- Complexity: O(waiters + log due users). Time: the server's, unless given; stream ids are the server's always.
local now = time_ms(ARGV[1])
local uid = ARGV[2]
local state = read(KEYS[1])
if state.v > SCHEMA then return {TOO_NEW, state.v} end
local seen = redis.call('HGET', KEYS[3], ARGV[3])
if seen then return {ANSWERED, string.match(seen, ':(.+)$')} end
if not state.h or (ARGV[12] ~= '' and state.h ~= ARGV[12]) then return {GONE, state.s} end

if ARGV[5] ~= '' then push(KEYS[2], ARGV[5]) end
local at = redis.call('XADD', KEYS[4], 'MAXLEN', '~', 2 * OUTBOX, '*', 'n', ARGV[6])
redis.call('HSET', KEYS[3], ARGV[3], state.r .. ':' .. at)
if ARGV[4] ~= '' then
  tell(KEYS[6], KEYS[7], ARGV[10], ARGV[11], 'k', ARGV[8], 'u', uid, 'd', ARGV[9], 'h', state.h)
  state.s, state.h = next_scene(state.s, ARGV[4]), nil
  if state.c then state.c[2], state.c[3] = '', 0 end
end
state.d, state.n, state.x = now + TTL_MS, nil, now
local due = state.d - NOTICE_MS
if not state.e or state.e > due then
  state.e = due
  redis.call('ZADD', KEYS[5], due, uid)
end
write(KEYS[1], state)
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], KEEP_MS) end
redis.call('PUBLISH', ARGV[7], uid)
return {DONE, at}
