-- ARGV: capacity. Answers: how many claims there were.
settle()
if not seen then return 0 end
local capacity, count, gone = tonumber(ARGV[1]), 0, {}
each(function(token, claim)
  count = count + 1
  claim.capacity = capacity
  if not holding(claim) and claim.weight > capacity then
    gone[#gone + 1] = { token, claim }
  else
    save(token, claim)
  end
end)
for _, pair in ipairs(gone) do
  wake(pair[1], pair[2])
  remove(pair[1], pair[2])
end
crowd = true -- assume so until it is checked
offer()
keep()
return count
