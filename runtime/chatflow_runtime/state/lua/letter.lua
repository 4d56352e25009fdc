-- The fields of a message in an inbox (accept.lua), included by scripts.py where they are read: u user, i message id,
-- d the message (opaque). What is none, as by a hand or another release, goes to the dead letters: it is nobody's.
local function letter_of(inbox, dead, entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  if fields.u and fields.i and fields.d then return fields end
  redis.call('XACK', inbox, READERS, entry[1])
  redis.call('XDEL', inbox, entry[1])
  give_up(dead, 'it is no message: u, i and d are wanted', entry[2])
end
