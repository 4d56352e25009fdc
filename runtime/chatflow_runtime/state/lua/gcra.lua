-- Charging one message to a rate (domain.rate), included by scripts.py where messages are let in. The key holds the
-- theoretical arrival time and goes by itself once it has passed. Returns nil, or the ms until it is worth trying again.
local function overdrawn(key, now, interval, burst)
  local following = math.max(tonumber(redis.call('GET', key) or 0), now) + interval
  local early = following - burst * interval - now
  if early > GRAIN_MS then return math.ceil(early) end
  redis.call('SET', key, string.format('%.3f', following), 'PX', math.ceil(following - now))
end
