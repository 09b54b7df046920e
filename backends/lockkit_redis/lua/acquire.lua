if not create then whatever_memory_is_left() end -- the claim is in the queue already, and must not miss its turn
settle()
local claim = seen and load(token)
if drained and not (claim and claim.state == 'HELD') then return { 'D', whole(now), drained } end

local function append(state, deadline)
  local last = seen and call('ZRANGE', q, -1, -1, 'WITHSCORES')[2]
  local fence = put(state, deadline, last and tonumber(last) or 0)
  keep()
  return fence
end

-- When the next in the queue should ask again: at the nearest deadline of its blockers, because no message tells of an expiry.
local function ask_again_at(fits)
  local nearest
  for _, pair in ipairs(fits) do
    local deadline = deadline_of(pair[1])
    if not nearest or deadline < nearest then nearest = deadline end
  end
  return nearest and whole(nearest) or false
end

local function queued(fits, head_capacity, own_capacity)
  local place = call('ZRANK', q, token)
  if own_capacity == head_capacity then head_capacity = capacity end -- the capacity that the caller gave, even if a resize has changed the claim's
  return { 'Q', whole(now), place, place <= #fits and ask_again_at(fits), head_capacity, head(), call('ZSCORE', q, token) }
end

if not claim then
  if not create then
    local fits, head_capacity = prefix()
    return { 'L', whole(now), (head_capacity and head_capacity < weight) and 'resized' or 'absent' }
  end
  if now > not_after or call('ZSCORE', g, token) then return { 'L', whole(now), 'late' } end
  local fits, head_capacity, total, after = prefix()
  head_capacity = head_capacity or capacity -- the queue is empty
  if not crowd and not after and head_capacity == capacity and total + weight <= capacity then
    return { 'G', whole(now), append('HELD', now + first) }
  end
  if not wait then return { 'B', whole(now), head_capacity, head() } end
  append('WAITING', now + GRACE)
  return queued(fits, head_capacity, capacity)
end

if create and not claim.replayed then
  claim.replayed = true
  save(token, claim)
end
if claim.evicted then return { 'L', whole(now), 'evicted' } end
if claim.state == 'LINGERING' then return { 'L', whole(now), 'lingering' } end
if claim.state == 'HELD' then
  prolong(token, claim, match(ARGV[7], '"ttl":(%d+)'))
elseif claim.state == 'OFFERED' then
  claim.state, claim.since, claim.renewed = 'HELD', now, now
  save(token, claim, held_until(claim))
elseif wait then
  call('ZADD', d, whole(now + GRACE), token)
  local fits, head_capacity = prefix()
  if crowd or call('ZRANK', q, token) >= #fits then
    keep()
    return queued(fits, head_capacity, claim.capacity)
  end
  -- The claim fits and was not offered its place: a script that removed another claim was stopped half-way by a missing right.
  claim.state, claim.since, claim.renewed = 'HELD', now, now
  save(token, claim, held_until(claim))
else
  remove(token, claim)
  offer()
  local fits, head_capacity = prefix()
  return { 'B', whole(now), head_capacity, head() }
end
keep()
return { 'G', whole(now), whole(tonumber(call('ZSCORE', q, token))) }
