-- ARGV: token, the note as it was read, the new note. Answers: 1 done, 0 the note has changed meanwhile, -1 no such claim.
whatever_memory_is_left() -- requests must reach the holder, and an eviction begins with its reason
settle()
local token = ARGV[1]
local claim = seen and even_damaged(token)
if not claim or claim.damaged then return -1 end
if (call('HGET', c, token .. ':note') or '') ~= ARGV[2] then return 0 end
call('HSET', c, token .. ':note', ARGV[3])
claim.asked = true
save(token, claim)
keep()
return 1
