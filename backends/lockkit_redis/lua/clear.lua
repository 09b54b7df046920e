-- KEYS: a key. ARGV: the value that it must have, and perhaps one to put in its place. Answers: 1 if it was removed or replaced, else 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[2])
  return 1
end
return redis.call('DEL', KEYS[1])
