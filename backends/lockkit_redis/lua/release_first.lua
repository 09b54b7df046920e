-- The first part of `release`, for the most frequent case: the claim is the first of the queue, it need not linger, and no request
-- of it can still be under way; and it is the only claim, or the next claim will hold alone and is offered the place. Both states
-- must be exactly as they were written (see `put`); otherwise the rest of `release` handles them.
--
-- ARGV: token, how it ends ('1' released, '0' ungraceful, '2' unused, so that nothing of it blocks), tombstone ('1' or '0'),
--       min_hold (ms), terms (as `acquire` has them). Answers: 1 if the claim was there, else 0.

local token, graceful, tombstone, used = ARGV[1], ARGV[2] ~= '0', ARGV[3] == '1', ARGV[2] ~= '2'

local function released()
  local front = call('ZRANGE', q, 0, 1, 'WITHSCORES')
  if front[1] ~= token then return end
  local nearest = call('ZRANGE', d, 0, 0, 'WITHSCORES')[2]
  if not nearest or tonumber(nearest) <= now then return end
  local after = front[3]
  local known = call('HMGET', c, token, '@', '@crowd', after or '')
  local since, terms = match(known[1] or '', '^{"v":1,"state":"HELD","since":(%d+),"renewed":%d+,(.*)$')
  if terms ~= ARGV[5] or (used and since + ARGV[4] > now) then return end
  if not after then return call('DEL', q, d, c) end
  local rest, weight, capacity, channel = match(known[4] or '',
    '^{"v":1,"state":"WAITING"(,"since":%d+,"renewed":%d+,"kind":"%l+","weight":(%d+),"capacity":(%d+),"ttl":%d+,"min_hold":%d+,"lock_delay":%d+,"wake":"([^"\\]+)".*)$')
  if weight ~= capacity or not rest or string.find(rest, 'min_reader', 1, true) then return end
  if known[3] or not known[2] or tonumber(known[2]) > now then return end
  if call('ZREM', d, token) == 0 then return end -- a script was stopped half-way, so the keys may not live as long as the claims
  call('ZREM', q, token)
  call('HDEL', c, token, token .. ':owner', token .. ':note')
  call('HSET', c, '@', format('%.0f', now), after, '{"v":1,"state":"OFFERED"' .. rest)
  -- The keys live longer: the claim's own deadline, yet to come, was there. A key that is new has no end yet.
  if call('ZADD', d, format('%.0f', now + GRACE), after) == 1 then call('PEXPIRE', d, GRACE + SLACK) end
  call('PUBLISH', channel, front[4])
  return 1
end

if graceful and not tombstone and released() then return 1 end
