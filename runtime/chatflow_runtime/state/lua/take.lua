-- Purpose: hand new messages of an inbox to the partition's owner. Their bodies stay where they are until an attempt at them
--   begins.
-- KEYS: 1 lease, 2 inbox, 3 dead letters
-- ARGV: 1 worker, 2 token, 3 how many at most
-- Returns: {DONE, {entry, uid, message id, 0}, ...}, oldest first | {LOST}
-- Complexity: O(messages). Time: none.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
local found = redis.pcall('XREADGROUP', 'GROUP', READERS, ARGV[1], 'COUNT', ARGV[3], 'STREAMS', KEYS[2], '>')
-- Whoever emptied the server took the group along: the owner begins anew.
if found and found.err then return {LOST} end
local taken = {DONE}
for _, entry in ipairs(found and found[1][2] or {}) do
  local letter = letter_of(KEYS[2], KEYS[3], entry)
  if letter then taken[#taken + 1] = {entry[1], letter.u, letter.i, 0} end
end
return taken
