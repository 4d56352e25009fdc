-- Purpose: claim a turn and read the conversation, or tell why not. A conversation that has ended or is past its
--   deadline starts afresh; a handoff lasts until settle.lua ends it, which tells the person. A claim of another message that is taken over leaves its text in the history, unanswered.
--   The history itself is read by a plain LRANGE sent along behind: through Lua its kilobytes would cost more than all
--   the rest (20 messages: 31 us against 8), and while the claim holds nobody else writes to it.
-- KEYS: 1 conversation, 2 history, 3 replies by message id, 4 outbox, 5 the user's rate
-- ARGV: 1 now in ms or '', 2 message id, 3 owner token, 4 message as the history keeps it (opaque), 5 uid,
--   6 wake-up channel, 7 '1' for a message that counts towards the user's rate
-- Returns: {CLAIMED, scene, revision, memory, id of the handoff that lasts or nil} | {ANSWERED, outbox id, {field, value}}
--   | {ATTACHED, retry in ms} | {QUEUED, retry in ms} | {REJECTED, scene} | {TOO_NEW, schema}
--   | {LIMITED, retry in ms}
-- Complexity: O(waiters), bounded. Time: the server's, unless given.
local now = time_ms(ARGV[1])
local id, owner = ARGV[2], ARGV[3]
local state = read(KEYS[1])
if state.v > SCHEMA then return {TOO_NEW, state.v} end

local seen = redis.call('HGET', KEYS[3], id)
if seen and is_forgotten(seen, state) then seen = nil end
local unanswered_in = is_unanswered(seen)
if seen and not unanswered_in then
  local at = string.match(seen, ':(.+)$')
  local entry = redis.call('XRANGE', KEYS[4], at, at)[1]
  if entry then return {ANSWERED, at, entry[2]} end
end

local queue, place = {}, nil
if state.q then
  for i = 1, #state.q, 2 do
    if state.q[i + 1] > now then
      queue[#queue + 1] = state.q[i]
      queue[#queue + 1] = state.q[i + 1]
      if state.q[i] == id then place = #queue end
    end
  end
  state.q = queue
end

local claim = state.c
-- A message is charged once: not when it waits already, nor when an attempt at it is under way or has died.
if USER_INTERVAL_MS > 0 and ARGV[7] == '1' and not seen and not place and not (claim and claim[1] == id) then
  local retry = overdrawn(KEYS[5], now, USER_INTERVAL_MS, USER_BURST)
  if retry then return {LIMITED, retry} end
end
local is_held = claim and claim[3] > now
local free_ms = is_held and claim[3] - now or (queue[2] or now) - now
if is_held and claim[1] == id then
  if claim[2] ~= owner then return {ATTACHED, math.min(RETRY_MS, free_ms)} end
elseif is_held or (queue[1] and queue[1] ~= id) then
  local policy = while_busy(state.s)
  -- A message that was interrupted itself must not interrupt in turn: two of them would never end.
  if policy ~= 'interrupt' or unanswered_in then
    if not place then
      if policy == 'reject' or #queue >= 2 * WAITERS then return {REJECTED, state.s} end
      queue[#queue + 1] = id
      place = #queue + 1
    end
    queue[place] = now + WAITER_MS
    state.q = queue
    write(KEYS[1], state)
    return {QUEUED, math.min(RETRY_MS, free_ms)}
  end
end

if place then
  table.remove(queue, place)
  table.remove(queue, place - 1)
end
if #queue == 0 then state.q = nil end

if state.s == 'end' or (state.d > 0 and state.d <= now and not state.h) then
  state.s, state.m, state.d, state.n, state.g, state.x = FIRST_SCENE, '', 0, nil, state.g + 1, 0
  redis.call('DEL', KEYS[2])
end
if claim and claim[1] ~= id then
  if claim[4] ~= '' then
    push(KEYS[2], claim[4])
    redis.call('PEXPIRE', KEYS[2], KEEP_MS)
    redis.call('HSET', KEYS[3], claim[1], state.r .. ':u' .. state.g)
    redis.call('PEXPIRE', KEYS[3], KEEP_MS)
    state.x = 0
  end
  redis.call('PUBLISH', ARGV[6], ARGV[5])
end

local is_kept = unanswered_in and tonumber(unanswered_in) == state.g
state.c = {id, owner, now + LEASE_MS, is_kept and '' or ARGV[4]}
write(KEYS[1], state)
if now - state.x > REFRESH_MS then redis.call('PEXPIRE', KEYS[1], KEEP_MS) end
return {CLAIMED, state.s, state.r, state.m, state.h or false}
