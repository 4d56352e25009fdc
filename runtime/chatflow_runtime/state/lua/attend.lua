-- Purpose: tell that a worker lives, and learn who else does. One that was not heard of for PARTITION_LEASE_MS is struck
--   off by whoever comes next, itself included, and only then do others take its partitions: so it learns of that here.
-- KEYS: 1 workers
-- ARGV: 1 now in ms or '', 2 worker
-- Returns: {now in ms, 1 if it was struck off or is new, worker, ...}, in no order
-- Complexity: O(workers). Time: the server's, unless given.
local now = time_ms(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - PARTITION_LEASE_MS)
-- The server's clock was put back: whoever told later than now would live on for as long.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now + PARTITION_LEASE_MS, '+inf')
local is_new = redis.call('ZSCORE', KEYS[1], ARGV[2]) and 0 or 1
redis.call('ZADD', KEYS[1], now, ARGV[2])
keep(KEYS[1])
return {now, is_new, unpack(redis.call('ZRANGE', KEYS[1], 0, -1))}
