-- Purpose: tell how many turns a process has under way, and add up those of the others. Who has not told for a while
--   counts no longer.
-- KEYS: 1 turns under way by process
-- ARGV: 1 now in ms or '', 2 process, 3 its turns
-- Returns: turns of the others
-- Complexity: O(processes). Time: the server's, unless given.
local now = time_ms(ARGV[1])
local told = redis.call('HGETALL', KEYS[1])
local others = 0
for i = 1, #told, 2 do
  local turns, at = string.match(told[i + 1], '^(%d+):(%d+)$')
  if now - at > BACKLOG_MS then
    redis.call('HDEL', KEYS[1], told[i])
  elseif told[i] ~= ARGV[2] then
    others = others + turns
  end
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. ':' .. string.format('%d', now))
redis.call('PEXPIRE', KEYS[1], 2 * BACKLOG_MS)
return others
