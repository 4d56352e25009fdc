-- Purpose: count an attempt at a message before it begins, and give out the message; or take the count back once the
--   attempt has ended without its worker. What is left over are the workers that ended with it.
-- KEYS: 1 lease, 2 inbox, 3 dead letters
-- ARGV: 1 worker, 2 token, 3 entry, 4 attempts
-- Returns: {DONE, message} | {GONE} for one that is not the worker's to answer | {LOST}
-- Complexity: O(1). Time: none.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
local entry = redis.call('XCLAIM', KEYS[2], READERS, ARGV[1], 0, ARGV[3], 'RETRYCOUNT', ARGV[4] + 1)[1]
local letter = entry and letter_of(KEYS[2], KEYS[3], entry)
return letter and {DONE, letter.d} or {GONE}
