-- Taking a message out of an inbox, included by scripts.py where one is done with. False when that has been done: an answer
-- that was lost on the way is asked for again.
local function take_out(inbox, accepted, entry, uid, id)
  redis.call('XACK', inbox, READERS, entry)
  if redis.call('XDEL', inbox, entry) == 0 then return false end
  if redis.call('HDEL', accepted, uid .. '\n' .. id) == 1 and redis.call('HINCRBY', accepted, uid, -1) <= 0 then
    redis.call('HDEL', accepted, uid)
  end
  return true
end
