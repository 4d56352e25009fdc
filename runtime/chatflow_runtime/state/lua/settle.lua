-- Purpose: look at a due user's real deadline: send the closing notice once, end the conversation, or set the next time.
--   A turn under way or waiting always wins.
-- KEYS: 1 conversation, 2 due users, 3 outbox, 4 hooks, 5 dead letters
-- ARGV: 1 now in ms or '', 2 uid, 3 event, 4 ms that the closing notice names, 5 closing notice (opaque),
--   6 last words (opaque), 7 wake-up channel; for a handoff that ends: 8 whose webhook, 9 delivery (opaque),
--   10 work channel, 11 partition
-- Returns: {CLOSING} | {ENDED} | {POSTPONED} | {GONE} | {OTHER_TIME, ms left} | {TOO_NEW, schema}
-- Complexity: O(waiters + log due users). Time: the server's, unless given.
local now = time_ms(ARGV[1])
local uid = ARGV[2]
local state, raw = read(KEYS[1])
if state.v > SCHEMA then return {TOO_NEW, state.v} end
if not raw then
  redis.call('ZREM', KEYS[2], uid)
  return {GONE}
end

local function set_due(at_ms)
  state.e = at_ms
  if at_ms then redis.call('ZADD', KEYS[2], at_ms, uid) else redis.call('ZREM', KEYS[2], uid) end
  write(KEYS[1], state)
end

if state.s == 'end' or state.d == 0 then
  set_due(nil)
  return {GONE}
end

local busy = state.c and state.c[3] or 0
for i = 2, state.q and #state.q or 0, 2 do busy = math.max(busy, state.q[i]) end
if busy > now then
  set_due(busy)
  return {POSTPONED}
end

local notice, status
if state.d <= now then
  state.s = next_scene(state.s, ARGV[3])
  if state.h then
    tell(KEYS[4], KEYS[5], ARGV[10], ARGV[11], 'k', ARGV[8], 'u', uid, 'd', ARGV[9], 'h', state.h)
    state.h = nil
    -- A turn that died, or comes back late, passes on nothing any longer: the bot answers it if it is sent again.
    if state.c then state.c[2] = '' end
  end
  set_due(nil)
  notice, status = ARGV[6], ENDED
elseif not state.n and NOTICE_MS > 0 and state.d - NOTICE_MS <= now then
  local left = state.d - now
  if math.abs(left - ARGV[4]) > NOTICE_SLACK_MS then return {OTHER_TIME, left} end
  state.n = 1
  set_due(state.d)
  notice, status = ARGV[5], CLOSING
else
  set_due(state.n and state.d or state.d - NOTICE_MS)
  return {POSTPONED}
end
redis.call('XADD', KEYS[3], '*', 'n', notice)
redis.call('PEXPIRE', KEYS[3], KEEP_MS)
redis.call('PUBLISH', ARGV[7], uid)
return {status}
