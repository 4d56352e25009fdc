-- Purpose: put a message into its partition's inbox, once however often it is sent.
-- KEYS: 1 inbox, 2 what it holds, 3 outbox, 4 replies by message id, 5 the user's rate
-- ARGV: 1 message id, 2 uid, 3 message (opaque), 4 work channel, 5 partition, 6 now in ms or ''
-- Returns: {DONE, messages before it, outbox id to read on from}, for a repetition as many as there can be at most
--   | {ANSWERED, outbox id of the reply} | {FULL, messages that wait} | {REJECTED, the user's own that wait}
--   | {LIMITED, retry in ms}
-- Complexity: O(1).
-- Time: the server's for the rate, unless given; ids have the server's.
local id, uid = ARGV[1], ARGV[2]
local field = uid .. '\n' .. id
local before = redis.call('HGET', KEYS[2], field)
if before then
  local position, resume = string.match(before, '^(%d+)|(.+)$')
  return {DONE, math.min(tonumber(position), redis.call('XLEN', KEYS[1]) - 1), resume}
end
local at = reply_at(KEYS[4], KEYS[3], id)
if at then return {ANSWERED, at} end

local waiting = redis.call('XLEN', KEYS[1])
if waiting >= INBOX then return {FULL, waiting} end
local own = tonumber(redis.call('HGET', KEYS[2], uid) or 0)
if own >= WAITERS then return {REJECTED, own} end

if USER_INTERVAL_MS > 0 then
  local retry = overdrawn(KEYS[5], time_ms(ARGV[6]), USER_INTERVAL_MS, USER_BURST)
  if retry then return {LIMITED, retry} end
end
local newest = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
local resume = newest and newest[1] or '0-0'
redis.call('XADD', KEYS[1], '*', 'u', uid, 'i', id, 'd', ARGV[3])
redis.call('HSET', KEYS[2], field, waiting .. '|' .. resume)
redis.call('HINCRBY', KEYS[2], uid, 1)
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {DONE, waiting, resume}
