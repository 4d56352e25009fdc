-- Purpose: extend the lease of a claim.
-- KEYS: 1 conversation, 2 replies by message id
-- ARGV: 1 now in ms or '', 2 message id, 3 owner token
-- Returns: {DONE} | {LOST} | {OVERTAKEN} when a newer message has it, or had | {TOO_NEW, schema}
-- Complexity: O(waiters). Time: the server's, unless given.
local state = read(KEYS[1])
if state.v > SCHEMA then return {TOO_NEW, state.v} end
if not owns(state, ARGV[2], ARGV[3]) then return {loss(state, KEYS[2], ARGV[2])} end
state.c[3] = time_ms(ARGV[1]) + LEASE_MS
write(KEYS[1], state)
return {DONE}
