-- Purpose: take an answered message out of the inbox, and leave word for the webhook where there is one.
-- KEYS: 1 lease, 2 inbox, 3 what it holds, 4 hooks, 5 dead letters
-- ARGV: 1 worker, 2 token, 3 entry, 4 uid, 5 message id, 6 whose webhook, 7 delivery (opaque) or '', 8 work channel,
--   9 partition
-- Returns: {DONE} | {LOST}
-- Complexity: O(1). Time: none; ids have the server's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
if take_out(KEYS[2], KEYS[3], ARGV[3], ARGV[4], ARGV[5]) and ARGV[7] ~= '' then
  tell(KEYS[4], KEYS[5], ARGV[8], ARGV[9], 'k', ARGV[6], 'u', ARGV[4], 'd', ARGV[7])
end
return {DONE}
