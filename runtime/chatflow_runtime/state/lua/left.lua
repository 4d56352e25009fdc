-- Purpose: tell the partition's owner what has been taken from an inbox and not answered: by owners before, or by itself,
--   as it was before the state server failed over. It is the owner's then, and what is nobody's stays as it is.
--   Consumers that are gone leave the group.
-- KEYS: 1 lease, 2 inbox, 3 dead letters
-- ARGV: 1 worker, 2 token
-- Returns: {DONE, {entry, uid, message id, attempts that have begun and never ended}, ...}, oldest first | {LOST}
-- Complexity: O(messages). Time: none.
if not holds(KEYS[1], ARGV[1], ARGV[2]) then return {LOST} end
local pending = redis.pcall('XPENDING', KEYS[2], READERS, '-', '+', INBOX)
if pending.err then
  redis.call('XGROUP', 'CREATE', KEYS[2], READERS, '0', 'MKSTREAM')
  return {DONE}
end
local left, is_foreign = {DONE}, false
for _, one in ipairs(pending) do
  local entry = redis.call('XRANGE', KEYS[2], one[1], one[1])[1]
  local letter = entry and letter_of(KEYS[2], KEYS[3], entry)
  if letter then
    left[#left + 1] = {one[1], letter.u, letter.i, one[4] - 1}
  elseif not entry then
    redis.call('XACK', KEYS[2], READERS, one[1])
  end
  is_foreign = is_foreign or one[2] ~= ARGV[1]
end
-- The count of an entry is that of attempts (attempt.lua), so it is not raised here.
if is_foreign then redis.call('XAUTOCLAIM', KEYS[2], READERS, ARGV[1], 0, '0-0', 'COUNT', INBOX, 'JUSTID') end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[2], READERS)) do
  if consumer[2] ~= ARGV[1] then redis.call('XGROUP', 'DELCONSUMER', KEYS[2], READERS, consumer[2]) end
end
return left
