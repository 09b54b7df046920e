whatever_memory_is_left()
settle()
local claim = seen and load(token)
if tombstone then bury(token) end
if not claim then
  call('ZREM', q, token) -- an acquire that was stopped half-way by a missing right may have left this
  call('ZREM', d, token)
  return 0
end
if claim.state == 'LINGERING' then return 1 end
if claim.state == 'HELD' and used then
  local till = claim.since + claim.min_hold
  if not graceful or claim.evicted then till = math.max(till, now + claim.lock_delay) end
  till = math.min(till, deadline_of(token) or now) -- none, if a release was stopped half-way
  if till > now then
    claim.state = 'LINGERING'
    save(token, claim, till)
    wake_next() -- otherwise it would sleep until the old deadline
    keep()
    return 1
  end
end
remove(token, claim)
offer()
keep()
return 1
