-- ARGV: token, the note as it was read, the note as it shall be. Answers: 1 done, 0 it has changed, -1 no such claim.
settle()
local token = ARGV[1]
local claim = seen and load(token)
if not claim then return -1 end
if (call('HGET', c, token .. ':note') or '') ~= ARGV[2] then return 0 end
call('HSET', c, token .. ':note', ARGV[3])
claim.asked = true
save(token, claim)
keep()
return 1
