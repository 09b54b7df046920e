-- ARGV: token, fence, ttl (ms). Answers: now, H | L why, and the note if others have changed it.
whatever_memory_is_left()
settle()
local token = ARGV[1]
local claim = seen and load(token)
if not claim then return { whole(now), 'L', 'absent' } end
local note = claim.asked and call('HGET', c, token .. ':note') or ''
if claim.evicted then return { whole(now), 'L', 'evicted', note } end
if claim.state ~= 'HELD' or tonumber(call('ZSCORE', q, token)) ~= tonumber(ARGV[2]) then
  return { whole(now), 'L', claim.state == 'LINGERING' and 'lapsed' or 'fence' }
end
claim.ttl = math.max(claim.ttl, tonumber(ARGV[3]))
claim.renewed = now
save(token, claim, math.max(deadline_of(token), held_until(claim)))
keep()
return { whole(now), 'H', '', note }
