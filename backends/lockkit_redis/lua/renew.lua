-- ARGV: (token, fence or '', ttl in ms) for each claim of the name. Answers: what `said` says of it; of several, a list of that.
whatever_memory_is_left()
settle()

local function renewed(token, fence, ttl)
  local claim, stored
  if seen then claim, stored = load(token) end
  if not claim then return said('L', 'absent') end
  local note = claim.asked and call('HGET', c, token .. ':note') or ''
  if claim.evicted then return said('L', 'evicted', note) end
  if claim.state == 'LINGERING' then return said('L', 'lapsed') end
  if fence == '' then
    if claim.state == 'WAITING' then
      call('ZADD', d, whole(now + GRACE), token)
      return said('W', '', note)
    end
    return said('O', '', note)
  end
  if claim.state ~= 'HELD' or tonumber(call('ZSCORE', q, token)) ~= tonumber(fence) then return said('L', 'fence') end
  -- As it was written but for the time, if it still is: what is done first of all in `release` knows it by that.
  local before, after = match(stored, '^({"v":1,"state":"HELD","since":%d+,"renewed":)%d+(,.*)$')
  if before and tonumber(ttl) <= claim.ttl then
    call('HSET', c, token, before .. whole(now) .. after)
    call('ZADD', d, whole(math.max(deadline_of(token), held_until(claim))), token)
  else
    prolong(token, claim, ttl)
  end
  return said('H', '', note)
end

-- A claim that cannot be read must not stop the renewals of others.
local answers = {}
for at = 1, #ARGV, 3 do
  local fine, answer = pcall(renewed, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  answers[#answers + 1] = (fine or type(answer) == 'table') and answer or redis.error_reply(answer)
end
if seen then keep() end
return #ARGV == 3 and answers[1] or answers
