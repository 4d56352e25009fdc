-- Purpose: take an answered message out of the inbox.
-- KEYS: 1 lease, 2 inbox, 3 what it holds
-- ARGV: 1 worker, 2 token, 3 entry, 4 uid, 5 message id
-- Returns: {DONE} | {LOST}
-- Complexity: O(1). Time: none.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
take_out(KEYS[2], KEYS[3], ARGV[3], ARGV[4], ARGV[5])
return {DONE}
