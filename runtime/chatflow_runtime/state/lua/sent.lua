-- Purpose: take out what a webhook has been told, or what it will not be told: that goes to the dead letters.
-- KEYS: 1 lease, 2 hooks, 3 dead letters
-- ARGV: 1 worker, 2 token, 3 entry, 4 why it is given up, or '' when it was told
-- Returns: {DONE} | {LOST}
-- Complexity: O(1). Time: none; ids have the server's.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
local entry = redis.call('XRANGE', KEYS[2], ARGV[3], ARGV[3])[1]
if not entry then return {DONE} end
if ARGV[4] ~= '' then give_up(KEYS[3], ARGV[4], entry[2]) end
redis.call('XDEL', KEYS[2], ARGV[3])
return {DONE}
