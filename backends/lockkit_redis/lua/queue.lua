-- The queue of one name. This text is part of every script of a queue. (Defining its functions takes the server longer than an
-- uncontended acquire, so the uncontended cases are handled before it, in the `_first` files.)
--
-- The rule is that of lockkit/store/queue.py: the holders are the longest prefix whose weights add up to at most the capacity
-- of the first. Between two scripts no claim is WAITING that fits, unless somebody holds outside the prefix.

local dirty = false -- claims came, went or changed since the prefix was last worked out
local seen, crowd

local function whole(number) return format('%.0f', number) end

local function positive(number) return type(number) == 'number' and number >= 1 end

-- A claim as stored; one of a layout that this version must not touch stops the script, and so does one that cannot be true.
local function read(stored)
  local fine, claim = pcall(decode, stored)
  local least = fine and type(claim) == 'table' and tonumber(claim.min_reader or 0)
  if least and least > READER then error('LAYOUT min_reader ' .. tostring(claim.min_reader)) end
  if not least or not positive(claim.weight) or not positive(claim.capacity) then error('DAMAGED claim') end
  return claim
end

local function load(token)
  local stored = call('HGET', c, token)
  return stored and read(stored), stored
end

-- A claim, also a damaged one. Of that nothing is known, so a copy of its create may be under way.
local function even_damaged(token)
  local stored = call('HGET', c, token)
  if not stored then return end
  local fine, claim = pcall(read, stored)
  if fine then return claim end
  if not string.find(claim, 'DAMAGED', 1, true) then error(claim, 0) end
  return { damaged = true, replayed = true }
end

local function save(token, claim, deadline)
  call('HSET', c, token, encode(claim))
  if deadline then call('ZADD', d, whole(deadline), token) end
end

local function deadline_of(token) return tonumber(call('ZSCORE', d, token)) end

local function holding(claim) return claim.state == 'HELD' or claim.state == 'LINGERING' end

-- A late copy of this token's create grants nothing for a minute.
local function bury(token)
  call('ZREMRANGEBYSCORE', g, '-inf', now)
  call('ZADD', g, now + TOMBSTONE, token)
  call('PEXPIRE', g, TOMBSTONE)
end

local function remove(token, claim)
  call('ZREM', q, token)
  call('ZREM', d, token)
  call('HDEL', c, token, token .. ':owner', token .. ':note')
  if claim.replayed then bury(token) end
  dirty = true
end

-- Call visit(token, claim, place) for each claim from the front until it returns true.
local function each(visit)
  local place = 0
  while true do
    local tokens = call('ZRANGE', q, place, place + CHUNK - 1)
    if #tokens == 0 then return end
    local stored = call('HMGET', c, unpack(tokens))
    for at, token in ipairs(tokens) do
      if stored[at] and visit(token, read(stored[at]), place) then return end
      place = place + 1
    end
    if #tokens < CHUNK then return end
  end
end

-- The claims of the prefix, their capacity and total weight, and the token and claim after it.
local function prefix()
  local fits, capacity, total, after = {}, nil, 0, nil
  each(function(token, claim)
    capacity = capacity or claim.capacity
    if claim.capacity ~= capacity or total + claim.weight > capacity then
      after = { token, claim }
      return true
    end
    total = total + claim.weight
    fits[#fits + 1] = { token, claim }
  end)
  return fits, capacity, total, after
end

-- Tell a claim's owner to ask again: publish the claim's fence on the owner's channel.
local function wake(token, claim)
  if type(claim.wake) == 'string' and claim.wake ~= '' then
    call('PUBLISH', claim.wake, whole(tonumber(call('ZSCORE', q, token))))
  end
end

-- Whether somebody holds outside the prefix, as after a shrinking resize. Claims offered there wait again.
local function look_outside(fits)
  local outside = false
  each(function(token, claim, place)
    if place < #fits then return end
    if holding(claim) then
      outside = true
    elseif claim.state == 'OFFERED' then
      claim.state = 'WAITING'
      save(token, claim)
    end
  end)
  crowd = outside
  if crowd then call('HSET', c, '@crowd', '1') else call('HDEL', c, '@crowd') end
end

-- Do what concerns only those who wait. A claim that cannot be read blocks them, but must not stop a script that holders need.
local function for_waiters(step)
  local fine, problem = pcall(step)
  if fine or (type(problem) == 'string' and (problem:find('DAMAGED', 1, true) or problem:find('LAYOUT', 1, true))) then return end
  error(problem, 0)
end

local function wake_next()
  for_waiters(function()
    local _, _, _, after = prefix()
    if after then wake(after[1], after[2]) end
  end)
end

local function offer_places()
  local fits = prefix()
  if crowd then look_outside(fits) end
  for _, pair in ipairs(fits) do
    local token, claim = pair[1], pair[2]
    if crowd and claim.state == 'OFFERED' then
      claim.state = 'WAITING'
      save(token, claim) -- keep the deadline of the offer, which only the claim's owner may change
    elseif not crowd and claim.state == 'WAITING' then
      claim.state = 'OFFERED'
      save(token, claim, now + GRACE)
      wake(token, claim)
    end
  end
end

local function offer()
  dirty = false
  if call('EXISTS', q) == 0 then
    call('DEL', c)
    seen, crowd = nil, false
    return
  end
  for_waiters(offer_places)
end

-- Until when a claim that is HELD now blocks: to now + ttl within max_hold, + lock_delay, past min_hold.
local function held_until(claim)
  local ends = now + claim.ttl
  if claim.max_hold then ends = math.min(ends, claim.since + claim.max_hold) end
  return math.max(ends + claim.lock_delay, claim.since + claim.min_hold)
end

-- Renew a claim that is HELD, with the ttl by which its owner counts. The stored one is shorter, if a failover or an old copy of the
-- data has set the server back behind an `extend`.
local function prolong(token, claim, ttl)
  claim.ttl = math.max(claim.ttl, tonumber(ttl))
  claim.renewed = now
  save(token, claim, math.max(deadline_of(token), held_until(claim)))
end

-- What the keys need to live as long as the longest of the claims, and a while longer. Every script that leaves claims ends
-- with this. (What is dealt with first of all may leave half of the while.)
local function keep()
  local last = call('ZRANGE', d, -1, -1, 'WITHSCORES')[2]
  if not last then return end
  local till = whole(tonumber(last) + SLACK)
  call('HSET', c, '@', whole(now))
  call('PEXPIREAT', q, till)
  call('PEXPIREAT', d, till)
  call('PEXPIREAT', c, till)
end

-- Shorten the deadline of a claim, so that it lasts no longer than its owner asked. One without a deadline gets the latest that it may have.
local function shorten(token)
  local claim = load(token)
  claim.since = math.min(claim.since, now)
  claim.renewed = math.min(claim.renewed, now)
  local latest = now + GRACE
  if claim.state == 'HELD' then
    latest = math.max(now + claim.ttl + claim.lock_delay, claim.since + claim.min_hold)
  elseif claim.state == 'LINGERING' then
    latest = now + math.max(claim.min_hold, claim.lock_delay)
  end
  save(token, claim, math.min(deadline_of(token) or latest, latest))
end

-- The clock was set back; or the server has thrown the deadlines away because memory was short, and a claim without one would block for
-- good. A claim that cannot be read is left as it is, and must not stop the renewals of others.
local function clamp()
  for _, token in ipairs(call('ZRANGE', q, 0, -1)) do pcall(shorten, token) end
  keep()
end

-- Let a script write although memory is full, because held locks must still be renewed and released. Redis refuses no write of a
-- script that has already written.
local function whatever_memory_is_left() call('ZREM', d, '') end

-- Remove lapsed claims, wherever they are in the queue, and offer their places to claims that now fit. Every script begins with this.
-- A lapsed claim for newer readers stays, and blocks.
local function settle()
  local marks = call('HMGET', c, '@', '@crowd')
  seen, crowd = marks[1], marks[2] and true or false
  if not seen then return end
  if tonumber(seen) > now or call('EXISTS', d) == 0 then clamp() end
  for _, token in ipairs(call('ZRANGEBYSCORE', d, '-inf', now)) do
    local fine, claim = pcall(even_damaged, token)
    if fine then remove(token, claim or {}) end
  end
  if dirty then offer() end
end

-- The answer to a heartbeat: a letter (H, W or O), or a list of the letter (L as well), the reason, and the note if others changed it.
local function said(letter, why, note)
  if why == '' and note == '' then return letter end
  return { letter, why, note or '' }
end

-- The first claim, to show who is in the way; nobody, if the server has thrown away what belongs to the first place.
local function head()
  local first = call('ZRANGE', q, 0, 0, 'WITHSCORES')
  local token = first[1]
  if not token then return false end
  local stored = call('HMGET', c, token, token .. ':owner', token .. ':note')
  local deadline = stored[1] and call('ZSCORE', d, token)
  return deadline and { token, first[2], deadline, stored[1], stored[2], stored[3] }
end
