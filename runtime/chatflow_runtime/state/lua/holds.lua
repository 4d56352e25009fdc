-- Whether a worker has a partition under a token, included by scripts.py in what only the owner may do. That of one
-- who is gone counts until somebody else takes it: nobody else acts before.
local function holds(key, worker, token)
  local lease = redis.call('HMGET', key, 'w', 't')
  return lease[1] == worker and lease[2] == token
end
