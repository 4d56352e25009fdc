-- Leaving word for a webhook, included by scripts.py where something happens that one is told of, so that both happen or
-- neither. The fields tell what: k whose webhook, u user, d the delivery (opaque), and what the script alone knows.
-- So many may wait; then the oldest one gives way to the dead letters: what is new matters more to who was long away.
local function tell(hooks, dead, channel, partition, ...)
  if redis.call('XLEN', hooks) >= HOOKS then
    local oldest = redis.call('XRANGE', hooks, '-', '+', 'COUNT', 1)[1]
    give_up(dead, 'too many wait', oldest[2])
    redis.call('XDEL', hooks, oldest[1])
  end
  redis.call('XADD', hooks, '*', ...)
  redis.call('PUBLISH', channel, partition)
end
