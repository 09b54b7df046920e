-- What stands in front of everything else in `release`: nobody else is there, nothing goes on blocking and nothing may still
-- be under way.
--
-- ARGV: token, graceful ('1', '0', or '2': it was granted to nobody, so nothing of it blocks), tombstone ('1' or '0').
-- Answers: 1 if the claim was there, else 0.

local token, graceful, tombstone, granted = ARGV[1], ARGV[2] == '1', ARGV[3] == '1', ARGV[2] ~= '2'

if graceful and not tombstone and call('ZCARD', q) == 1 then
  local stored, deadline = call('HGET', c, token), call('ZSCORE', d, token)
  if stored and tonumber(deadline) > now then
    local claim = decode(stored)
    if claim.state == 'HELD' and not claim.replayed and not claim.evicted and not claim.min_reader
      and claim.since + claim.min_hold <= now then
      call('DEL', q, d, c)
      return 1
    end
  end
end
