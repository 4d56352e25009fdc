-- Purpose: extend the lease of a claim.
-- KEYS: 1 conversation
-- ARGV: 1 now in ms or '', 2 message id, 3 owner token
-- Returns: {DONE} | {LOST} | {TOO_NEW, schema}
-- Complexity: O(waiters). Time: the server's, unless given.
local state = read(KEYS[1])
if state.v > SCHEMA then return {TOO_NEW, state.v} end
if not owns(state, ARGV[2], ARGV[3]) then return {LOST} end
state.c[3] = time_ms(ARGV[1]) + LEASE_MS
write(KEYS[1], state)
return {DONE}
