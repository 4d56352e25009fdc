-- Purpose: give a partition up, for whoever comes. The token stays, so that the next one is greater.
-- KEYS: 1 lease
-- ARGV: 1 worker, 2 token, or '' for whichever it has
-- Returns: {DONE} | {LOST}
-- Complexity: O(1). Time: none.
local lease = redis.call('HMGET', KEYS[1], 'w', 't')
if lease[1] ~= ARGV[1] or (ARGV[2] ~= '' and lease[2] ~= ARGV[2]) then return {LOST} end
redis.call('HDEL', KEYS[1], 'w', 'e')
return {DONE}
