-- Purpose: take the users of a partition that are due. They stay in the set, due again after a lease, so that a crash
--   of the taker loses nothing; settle.lua sets or removes each.
-- KEYS: 1 due users
-- ARGV: 1 now in ms or ''
-- Returns: {now in ms, uid, ...}, at most SWEEP_USERS of them, longest due first
-- Complexity: O(SWEEP_USERS * log due users). Time: the server's, unless given.
local now = time_ms(ARGV[1])
local uids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, SWEEP_USERS)
for _, uid in ipairs(uids) do redis.call('ZADD', KEYS[1], now + SWEEP_LEASE_MS, uid) end
return {now, unpack(uids)}
