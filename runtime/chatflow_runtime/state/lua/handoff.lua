-- Purpose: show where a conversation stands, for those who may answer in the place of the bot.
-- KEYS: 1 conversation
-- ARGV: none
-- Returns: {DONE, scene, id of the handoff or nil} | {TOO_NEW, schema}
-- Complexity: O(waiters). Time: none.
local state = read(KEYS[1])
if state.v > SCHEMA then return {TOO_NEW, state.v} end
return {DONE, state.s, state.h or false}
