-- The first part of `acquire`, for the two most frequent cases, in as few commands as possible: the queue is empty, so the claim
-- is granted; or the claim was offered its place, and takes it.
--
-- ARGV: token, flags (create, wait, replay: '1' or '0' each), not_after (ms), weight, capacity, first (ms from the grant to
--       the deadline), terms (the rest of the state as JSON, without its opening brace), owner (JSON), note (JSON or '')
-- Answers: G now fence [new: 1 if no fence is known of the name] | Q now place ask_again_at capacity head fence | B now capacity head | L now why

local token, flags, not_after = ARGV[1], ARGV[2], tonumber(ARGV[3])
local create, wait, replay = flags:byte(1) == 49, flags:byte(2) == 49, flags:byte(3) == 49
local weight, capacity, first = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

-- Put the claim at the tail, with a fence above `least`, every one before, and the clock.
local function put(state, deadline, least)
  local before = call('GET', f)
  local fence = math.max(us, tonumber(before or 0) + 1, least + 1)
  local shown, at, till = format('%.0f', fence), format('%.0f', now), format('%.0f', deadline + SLACK)
  local marks = replay and '"replayed":true,' or ''
  local stored = '{"v":1,"state":"' .. state .. '","since":' .. at .. ',"renewed":' .. at .. ',' .. marks .. ARGV[7]
  call('ZADD', q, shown, token)
  call('ZADD', d, format('%.0f', deadline), token)
  if ARGV[9] == '' then
    call('HSET', c, '@', at, token, stored, token .. ':owner', ARGV[8])
  else
    call('HSET', c, '@', at, token, stored, token .. ':owner', ARGV[8], token .. ':note', ARGV[9])
  end
  call('SET', f, shown, 'PX', KEPT)
  if least == 0 then
    call('PEXPIREAT', q, till)
    call('PEXPIREAT', d, till)
    call('PEXPIREAT', c, till)
  end
  return fence, not before and 1 or nil
end

if create and now <= not_after
  and (call('EXISTS', c, g) == 0 or (call('EXISTS', c) == 0 and not call('ZSCORE', g, token))) then
  return { 'G', now, put('HELD', now + first, 0) }
end

-- Take the place that was offered, if apart from the offer the state is exactly as it was written.
local function taken()
  local known = call('HMGET', c, token, '@')
  local terms = match(known[1] or '', '^{"v":1,"state":"OFFERED","since":%d+,"renewed":%d+,(.*)$')
  if terms ~= ARGV[7] or not known[2] or tonumber(known[2]) > now then return end
  local nearest = call('ZRANGE', d, 0, 0, 'WITHSCORES')[2]
  if not nearest or tonumber(nearest) <= now then return end
  local at, deadline = format('%.0f', now), now + first
  call('ZREM', d, '') -- a script that has begun to write may go on when memory is full
  if call('PTTL', c) < first + SLACK / 2 then -- so this is later than it was: no claim outlives the keys, see `keep`
    local till = format('%.0f', deadline + SLACK)
    call('PEXPIREAT', q, till)
    call('PEXPIREAT', d, till)
    call('PEXPIREAT', c, till)
  end
  call('HSET', c, '@', at, token, '{"v":1,"state":"HELD","since":' .. at .. ',"renewed":' .. at .. ',' .. terms)
  call('ZADD', d, format('%.0f', deadline), token)
  local front = call('ZRANGE', q, 0, 0, 'WITHSCORES')
  return front[1] == token and front[2] or call('ZSCORE', q, token)
end

local place = not create and taken()
if place then return { 'G', now, place } end
