-- What `doctor` tries: each command that the scripts call, on a key that nobody has, so that nothing is changed or left.
-- First among those that write are those that full memory forbids: once a script has written, none is.
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
  { 'HSET', k, 'x', 'y', 'z' }, -- there is no HSET that writes nothing, but for one with a word too few
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
