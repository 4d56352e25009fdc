-- Purpose: give a message up: it goes to the dead letters, its user is told, and the webhook where there is one.
-- KEYS: 1 lease, 2 inbox, 3 what it holds, 4 hooks, 5 dead letters, 6 outbox, 7 replies by message id
-- ARGV: 1 worker, 2 token, 3 entry, 4 uid, 5 message id, 6 whose webhook, 7 delivery (opaque) or '', 8 work channel,
--   9 partition, 10 reason, 11 notice (opaque), 12 wake-up channel
-- Returns: {DONE} | {LOST}
-- Complexity: O(1). Time: none; ids have the server's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
local entry = redis.call('XRANGE', KEYS[2], ARGV[3], ARGV[3])[1]
if not entry then return {DONE} end
take_out(KEYS[2], KEYS[3], ARGV[3], ARGV[4], ARGV[5])
-- A worker that ended, or has lost the partition meanwhile, may have answered it.
if reply_at(KEYS[7], KEYS[6], ARGV[5]) then return {DONE} end
give_up(KEYS[5], ARGV[10], entry[2])
local at = redis.call('XADD', KEYS[6], 'MAXLEN', '~', 2 * OUTBOX, '*', 'n', ARGV[11])
redis.call('PEXPIRE', KEYS[6], KEEP_MS)
if ARGV[7] ~= '' then
  tell(KEYS[4], KEYS[5], ARGV[8], ARGV[9], 'k', ARGV[6], 'u', ARGV[4], 'd', ARGV[7], 'o', at)
end
redis.call('PUBLISH', ARGV[12], ARGV[4])
return {DONE}
