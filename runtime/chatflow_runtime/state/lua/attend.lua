-- Purpose: tell that a worker lives, and learn who else does.
-- KEYS: 1 workers
-- ARGV: 1 now in ms or '', 2 worker
-- Returns: {worker, ...}, in no order
-- Complexity: O(workers). Time: the server's, unless given.
local now = time_ms(ARGV[1])
redis.call('ZADD', KEYS[1], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - PARTITION_LEASE_MS)
redis.call('PEXPIRE', KEYS[1], KEEP_MS)
return redis.call('ZRANGE', KEYS[1], 0, -1)
