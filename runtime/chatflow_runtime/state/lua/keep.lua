-- Included by scripts.py where a key must outlive its last use: its expiry is put off only once half of it is near, since
-- that is a write.
local function keep(key)
  if redis.call('PTTL', key) < KEEP_MS - REFRESH_MS then redis.call('PEXPIRE', key, KEEP_MS) end
end
