-- Purpose: take an answered message out of the inbox, and leave word for the webhook where there is one.
-- KEYS: 1 lease, 2 inbox, 3 what it holds, 4 hooks, 5 dead letters, 6 outbox, 7 replies by message id
-- ARGV: 1 worker, 2 token, 3 entry, 4 uid, 5 message id, 6 whose webhook, 7 delivery (opaque) or '', 8 work channel,
--   9 partition
-- Returns: {DONE} | {GONE} when its reply is lost, as a failover may leave it: it is still to be answered | {LOST}
-- Complexity: O(1). Time: none; ids have the server's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
if not reply_at(KEYS[7], KEYS[6], ARGV[5]) and redis.call('XRANGE', KEYS[2], ARGV[3], ARGV[3])[1] then return {GONE} end
if take_out(KEYS[2], KEYS[3], ARGV[3], ARGV[4], ARGV[5]) and ARGV[7] ~= '' then
  tell(KEYS[4], KEYS[5], ARGV[8], ARGV[9], 'k', ARGV[6], 'u', ARGV[4], 'd', ARGV[7])
end
return {DONE}
