-- Taking a message out of an inbox, included by scripts.py where one is done with.
local function take_out(inbox, accepted, entry, uid, id)
  redis.call('XACK', inbox, READERS, entry)
  redis.call('XDEL', inbox, entry)
  if redis.call('HDEL', accepted, uid .. '\n' .. id) == 1 and redis.call('HINCRBY', accepted, uid, -1) <= 0 then
    redis.call('HDEL', accepted, uid)
  end
end
