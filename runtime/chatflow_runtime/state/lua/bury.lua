-- Purpose: give a message up: it goes to the dead letters, and its user is told.
-- KEYS: 1 lease, 2 inbox, 3 what it holds, 4 dead letters, 5 outbox
-- ARGV: 1 worker, 2 token, 3 entry, 4 uid, 5 message id, 6 message (opaque), 7 reason, 8 notice (opaque),
--   9 wake-up channel
-- Returns: {DONE} | {LOST}
-- Complexity: O(1). Time: none; ids have the server's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
if not take_out(KEYS[2], KEYS[3], ARGV[3], ARGV[4], ARGV[5]) then return {DONE} end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', DEAD, '*', 'd', ARGV[6], 'why', ARGV[7])
redis.call('XADD', KEYS[5], '*', 'n', ARGV[8])
redis.call('PEXPIRE', KEYS[5], KEEP_MS)
redis.call('PUBLISH', ARGV[9], ARGV[4])
return {DONE}
