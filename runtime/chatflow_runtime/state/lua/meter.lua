-- Purpose: charge one request to the rate of a client address, or of a user where no other script does.
-- KEYS: 1 rate
-- ARGV: 1 now in ms or '', 2 ms between two requests at the rate, 3 how many may come at once
-- Returns: {DONE} | {LIMITED, retry in ms}
-- Complexity: O(1). Time: the server's, unless given.
local retry = overdrawn(KEYS[1], time_ms(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
if retry then return {LIMITED, retry} end
return {DONE}
