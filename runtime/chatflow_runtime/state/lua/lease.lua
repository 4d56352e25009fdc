-- Purpose: take a partition that is free or whose worker is gone, or look whether it is still one's own, which writes
--   nothing. Each ownership has a token greater than any before it, and lasts for as long as its worker attends.
-- KEYS: 1 lease
-- ARGV: 1 worker, 2 the token that it has, or 0, 3 when it attended, in ms, 4... the workers that lived then
-- Returns: {DONE, token} | {LOST}
-- Complexity: O(workers). Time: none; that of attend.lua is compared with itself, since in a cluster the partition may
--   lie on another server.
local lease = redis.call('HMGET', KEYS[1], 'w', 't', 'e')
local token = tonumber(lease[2] or 0)
if lease[1] == ARGV[1] and lease[2] == ARGV[2] then
  keep(KEYS[1])
  return {DONE, token}
end
if lease[1] and lease[1] ~= ARGV[1] then
  for i = 4, #ARGV do
    if ARGV[i] == lease[1] then return {LOST} end
  end
  -- It took the partition with newer tidings of who lives than these. A time that is further ahead is of a clock that
  -- was put back.
  local ahead = lease[3] - ARGV[3]
  if ahead > 0 and ahead <= PARTITION_LEASE_MS then return {LOST} end
end
redis.call('HSET', KEYS[1], 'w', ARGV[1], 't', token + 1, 'e', ARGV[3])
keep(KEYS[1])
return {DONE, token + 1}
