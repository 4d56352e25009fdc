-- Purpose: take a partition that is free, or keep one. Each ownership has a token greater than any before it.
-- KEYS: 1 lease
-- ARGV: 1 now in ms or '', 2 worker
-- Returns: {DONE, token} | {LOST}
-- Complexity: O(1). Time: the server's, unless given.
local now = time_ms(ARGV[1])
local lease = redis.call('HMGET', KEYS[1], 'w', 't', 'e')
local token = tonumber(lease[2] or 0)
if lease[1] ~= ARGV[2] then
  if lease[1] and tonumber(lease[3]) > now then return {LOST} end
  token = token + 1
end
redis.call('HSET', KEYS[1], 'w', ARGV[2], 't', token, 'e', now + PARTITION_LEASE_MS)
redis.call('PEXPIRE', KEYS[1], KEEP_MS)
return {DONE, token}
