-- Purpose: show the partition's owner what webhooks are to be told. It stays where it is until sent.lua takes it out.
-- KEYS: 1 lease, 2 hooks
-- ARGV: 1 worker, 2 token, 3 entry after which to begin, or '-', 4 how many at most
-- Returns: {DONE, {entry, whose webhook, user}, ...}, oldest first | {LOST}
-- Complexity: O(entries shown). Time: none.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
local first = ARGV[3] == '-' and '-' or '(' .. ARGV[3]
local shown = {DONE}
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', ARGV[4])) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  shown[#shown + 1] = {entry[1], fields.k, fields.u}
end
return shown
