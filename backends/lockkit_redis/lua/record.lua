-- KEYS: the record. ARGV: the version that it must have (0: none), the new record as JSON, and a damaged record that may be replaced
-- as well. Answers: 1, or the present record.
local stored = redis.call('GET', KEYS[1])
if not stored or stored ~= ARGV[3] then
  local legible, before = pcall(cjson.decode, stored or '{}')
  if not legible or type(before) ~= 'table' then return stored end
  local least = tonumber(before.min_reader) or 0
  if least > 1 then return redis.error_reply('LAYOUT min_reader ' .. least) end
  if (stored and before.version or 0) ~= tonumber(ARGV[1]) then return stored end
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
