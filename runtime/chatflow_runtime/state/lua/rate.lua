-- Purpose: keep a rating, and end the conversation where the table says so.
-- KEYS: 1 conversation, 2 due users, 3 records
-- ARGV: 1 event, 2 record (opaque), 3 uid
-- Returns: {DONE, scene} | {TOO_NEW, schema}
-- Complexity: O(log due users). Time: none; the record's id has the server's.
local state = read(KEYS[1])
if state.v > SCHEMA then return {TOO_NEW, state.v} end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', RECORDS, '*', 'd', ARGV[2])
local scene = next_scene(state.s, ARGV[1])
if scene ~= state.s then
  state.s = scene
  if scene == 'end' then
    state.d, state.e = 0, nil
    redis.call('ZREM', KEYS[2], ARGV[3])
  end
  write(KEYS[1], state)
end
return {DONE, scene}
