-- The first part of `acquire`, for the three most frequent cases, in as few commands as possible: the queue is empty, so the claim
-- is granted; or one claim has the whole capacity, so the new claim waits, or is refused; or the claim was offered its place, and takes it.
--
-- ARGV: token, flags (create, wait, replay: '1' or '0' each), not_after (ms), weight, capacity, first (ms from the grant to
--       the deadline), terms (the rest of the state as JSON, without its opening brace), owner (JSON), note (JSON or ''); only an
--       acquire that creates needs owner and note
-- KEYS[6]: the mark of a drained namespace, which has every claim refused that is not HELD.
-- Answers: D now mark | G now fence [new: 1 if no fence is known of the name] | Q now place ask_again_at capacity head fence | B now capacity head | L now why

local token, flags, not_after = ARGV[1], ARGV[2], tonumber(ARGV[3])
local create, wait, replay = flags:byte(1) == 49, flags:byte(2) == 49, flags:byte(3) == 49
local weight, capacity, first = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

-- Put the claim at the tail, with a fence above `least`, every one before, and the clock. Without `least`, and without a record of
-- the fences before, the last of the queue takes its place: while there is a record, it is above all in the queue.
local function put(state, deadline, least)
  local before = call('GET', f)
  least = least or (before and 1) or tonumber(call('ZRANGE', q, -1, -1, 'WITHSCORES')[2])
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

-- Wait behind a claim that has the whole capacity, if the state of that claim is exactly as it was written: then nobody else fits.
-- As in `acquire`, nothing may have lapsed, the clock not have been set back, and nobody hold outside the prefix.
local function behind()
  local front = call('ZRANGE', q, 0, 0, 'WITHSCORES')
  local first = front[1]
  if not first then return end
  local known = call('HMGET', c, '@', '@crowd', token, first, first .. ':owner', first .. ':note')
  if not known[1] or tonumber(known[1]) > now or known[2] or known[3] or not known[4] then return end
  local state, weighs, of = match(known[4],
    '^{"v":1,"state":"(%u+)","since":%d+,"renewed":%d+,"kind":"%l+","weight":(%d+),"capacity":(%d+),"ttl"')
  if (state ~= 'HELD' and state ~= 'OFFERED') or weighs ~= of or tonumber(of) ~= capacity then return end
  if string.find(known[4], 'min_reader', 1, true) then return end
  local nearest = call('ZRANGE', d, 0, 0, 'WITHSCORES')[2]
  if not nearest or tonumber(nearest) <= now then return end
  local ends = call('ZSCORE', d, first)
  if not ends then return end
  local shown = { first, front[2], ends, known[4], known[5], known[6] }
  if not wait then
    return { 'B', now, capacity, shown }
  end
  local fence = put('WAITING', now + GRACE)
  if call('PTTL', c) < GRACE + SLACK / 2 then -- see `taken`
    local till = format('%.0f', now + GRACE + SLACK)
    call('PEXPIREAT', q, till)
    call('PEXPIREAT', d, till)
    call('PEXPIREAT', c, till)
  end
  local place = call('ZRANK', q, token)
  return { 'Q', now, place, place == 1 and ends, capacity, shown, format('%.0f', fence) }
end

local mark = KEYS[6]
if create and now <= not_after then
  local there = call('EXISTS', c, g, mark)
  local free = there == 0
  -- If one of the keys is there and `behind` finds claims, it is theirs: then there is neither a tombstone nor a mark.
  if there == 1 or (not free and call('EXISTS', mark) == 0 and not call('ZSCORE', g, token)) then
    local answer = behind()
    if answer then return answer end
    free = call('EXISTS', c, mark) == 0 and not call('ZSCORE', g, token)
  end
  if free then return { 'G', now, put('HELD', now + first, 0) } end
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

local drained = call('GET', mark)
local place = not create and not drained and taken()
if place then return { 'G', now, place } end
