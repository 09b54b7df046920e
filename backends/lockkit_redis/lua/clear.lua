-- KEYS: a key. ARGV: the value that it must have. Answers: 1 if it was removed, else 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
