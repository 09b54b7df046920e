-- KEYS: the record. ARGV: the version that it must have (0: none), the new record as JSON. Answers: 1, or the present record.
local stored = redis.call('GET', KEYS[1])
local before = stored and cjson.decode(stored) or {}
if tonumber(before.min_reader or 0) > 1 then return redis.error_reply('LAYOUT min_reader ' .. before.min_reader) end
local version = before.version or 0
if version ~= tonumber(ARGV[1]) then return stored end
redis.call('SET', KEYS[1], ARGV[2])
return 1
