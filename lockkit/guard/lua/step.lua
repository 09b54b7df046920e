-- One step of a holder: the rule of lockkit/guard/record.py, with the write, in one script.
-- KEYS: the record, the value. ARGV: fence (20 digits), opening, step (20 digits), and the value unless the step is an opening.
-- Returns APPLY or DONE, or STALE with the stored record, empty if there is none.
local function before(a, b) -- numbers of 20 digits, as two of 10, which a double holds exactly
  local high, other = tonumber(string.sub(a, 1, 10)), tonumber(string.sub(b, 1, 10))
  if high ~= other then return high < other end
  return tonumber(string.sub(a, 11)) < tonumber(string.sub(b, 11))
end

local fence, opening, step, value = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local stored = redis.call('GET', KEYS[1])
local known, holder, done
if stored then
  known, holder, done = string.match(stored, '^(%d+)%.(%x+)%.(%d+)$')
  if not done or #known ~= 20 or #holder ~= 16 or #done ~= 20 then return {'OTHER', string.sub(stored, 1, 80)} end
end

if stored and known == fence and holder == opening then
  if not before(done, step) then return {'DONE', stored} end
elseif value then
  return {'STALE', stored or ''}
elseif stored and before(fence, known) then
  return {'STALE', stored}
end

redis.call('GET', KEYS[2]) -- ends the script with WRONGTYPE if the key has another type, which SET would replace

-- The record first: if the user may not write the value, the script stops there, and the value is as it was.
redis.call('SET', KEYS[1], fence .. '.' .. opening .. '.' .. step)
if value then redis.call('SET', KEYS[2], value) end
return {'APPLY', stored or ''}
