-- Purpose: hand messages of an inbox to the partition's owner: at first what owners before it have left, then what is
--   new. Consumers that are gone leave the group with their last message.
-- KEYS: 1 lease, 2 inbox
-- ARGV: 1 worker, 2 token, 3 how many new ones, or 0 for all that were left
-- Returns: {DONE, {outbox id, {field, value}, times handed out}, ...}, oldest first | {LOST}
-- Complexity: O(messages). Time: none.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
local taken = {DONE}
if ARGV[3] == '0' then
  redis.pcall('XGROUP', 'CREATE', KEYS[2], READERS, '0', 'MKSTREAM')
  local left = redis.call('XAUTOCLAIM', KEYS[2], READERS, ARGV[1], 0, '0-0', 'COUNT', INBOX)[2]
  for _, entry in ipairs(left) do
    local pending = redis.call('XPENDING', KEYS[2], READERS, entry[1], entry[1], 1)[1]
    taken[#taken + 1] = {entry[1], entry[2], pending[4]}
  end
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[2], READERS)) do
    if consumer[2] ~= ARGV[1] then redis.call('XGROUP', 'DELCONSUMER', KEYS[2], READERS, consumer[2]) end
  end
  return taken
end
local found = redis.pcall('XREADGROUP', 'GROUP', READERS, ARGV[1], 'COUNT', ARGV[3], 'STREAMS', KEYS[2], '>')
-- Whoever emptied the server took the group along: the owner begins anew.
if found and found.err then return {LOST} end
for _, entry in ipairs(found and found[1][2] or {}) do taken[#taken + 1] = {entry[1], entry[2], 1} end
return taken
