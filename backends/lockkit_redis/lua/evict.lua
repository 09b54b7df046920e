-- ARGV: token, 'now' | 'mark' | 'waiting'. With 'waiting', a claim that does not wait is left alone, as if it were absent.
-- Answers: MARKED deadline | REMOVED | ABSENT.
whatever_memory_is_left()
settle()
local token, at_once = ARGV[1], ARGV[2] == 'now'
local claim = seen and (at_once and even_damaged or load)(token)
if not claim then return { 'ABSENT' } end
if at_once or claim.state == 'WAITING' or claim.state == 'OFFERED' then
  wake(token, claim) -- while it has a fence; it queues again
  remove(token, claim)
  bury(token)
  offer()
  keep()
  return { 'REMOVED' }
end
if ARGV[2] == 'waiting' then
  keep()
  return { 'ABSENT' }
end
local deadline = deadline_of(token)
if claim.state == 'HELD' then
  claim.evicted = true
  local silent = claim.renewed + claim.ttl + claim.lock_delay
  deadline = math.min(deadline, math.max(silent, claim.since + claim.min_hold))
  save(token, claim, deadline)
  wake_next()
end
keep()
return { 'MARKED', whole(deadline) }
