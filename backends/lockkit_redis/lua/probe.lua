-- The probe of `doctor`: try each command that the scripts call, on a key that nobody uses, so that nothing is changed or left.
-- Of the commands that write, those that Redis refuses when memory is full come first: after a script has written, it refuses none.
--
-- KEYS: the key. ARGV: a channel that nobody hears. Answers: command and error, for each that was refused.
local k, channel = KEYS[1], ARGV[1]
local tried = {
  { 'TIME' },
  { 'EXISTS', k },
  { 'GET', k },
  { 'PTTL', k },
  { 'HGET', k, 'x' },
  { 'HMGET', k, 'x' },
  { 'ZRANGE', k, 0, 0 },
  { 'ZRANGEBYSCORE', k, 0, 0 },
  { 'ZRANK', k, 'x' },
  { 'ZSCORE', k, 'x' },
  { 'SET', k, 'x', 'XX' },
  { 'ZADD', k, 'XX', 0, 'x' },
  { 'HSET', k, 'x', 'y', 'z' }, -- an argument is missing on purpose: no valid HSET writes nothing
  { 'PEXPIRE', k, 1 },
  { 'PEXPIREAT', k, 1 },
  { 'HDEL', k, 'x' },
  { 'ZREM', k, 'x' },
  { 'ZREMRANGEBYSCORE', k, 0, 0 },
  { 'DEL', k },
  { 'PUBLISH', channel, '' },
}
local refused = {}
for _, words in ipairs(tried) do
  local answer = redis.pcall(unpack(words))
  local why = type(answer) == 'table' and answer.err
  if why and not string.find(why, 'wrong number of arguments', 1, true) then
    refused[#refused + 1] = { words[1], why }
  end
end
return refused
