-- ARGV: token, fence, ttl (ms). Answers: now, and what `said` says.
whatever_memory_is_left()
settle()
local token = ARGV[1]

local function extended()
  local claim = seen and load(token)
  if not claim then return said('L', 'absent') end
  local note = claim.asked and call('HGET', c, token .. ':note') or ''
  if claim.evicted then return said('L', 'evicted', note) end
  if claim.state ~= 'HELD' or tonumber(call('ZSCORE', q, token)) ~= tonumber(ARGV[2]) then
    return said('L', claim.state == 'LINGERING' and 'lapsed' or 'fence')
  end
  prolong(token, claim, ARGV[3])
  keep()
  return said('H', '', note)
end

return { whole(now), extended() }
