-- Keeping what is given up, with the reason, for DEAD_MS after the last of it; included by scripts.py where that happens.
local function give_up(dead, why, fields)
  redis.call('XADD', dead, 'MAXLEN', '~', DEAD, '*', 'why', why, unpack(fields))
  redis.call('PEXPIRE', dead, DEAD_MS)
end
