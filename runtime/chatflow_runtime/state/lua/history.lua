-- Adding to the history, included by scripts.py where messages are written. Trimming waits until some are too many, since
-- it costs as much as adding; readers take the last HISTORY.
local function push(key, ...)
  if redis.call('RPUSH', key, ...) >= HISTORY + HISTORY_SLACK then redis.call('LTRIM', key, -HISTORY, -1) end
end
