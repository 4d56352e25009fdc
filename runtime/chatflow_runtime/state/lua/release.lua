-- Purpose: give a claim up with nothing written, and wake those who wait.
-- KEYS: 1 conversation
-- ARGV: 1 message id, 2 owner token, 3 uid, 4 wake-up channel
-- Returns: {DONE} | {LOST} | {TOO_NEW, schema}
-- Complexity: O(waiters). Time: none.
local state = read(KEYS[1])
if state.v > SCHEMA then return {TOO_NEW, state.v} end
if not owns(state, ARGV[1], ARGV[2]) then return {LOST} end
state.c = nil
write(KEYS[1], state)
redis.call('PUBLISH', ARGV[4], ARGV[3])
return {DONE}
