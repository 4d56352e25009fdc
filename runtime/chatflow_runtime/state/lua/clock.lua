-- Time source of the scripts, included by scripts.py: an explicit time where one is given, else the server's own clock.
local function time_ms(given)
  if given ~= '' then return tonumber(given) end
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end
