-- ARGV: capacity. Answers: how many claims there were.
settle()
if not seen then return 0 end
local capacity, all = tonumber(ARGV[1]), {}
each(function(token, claim) all[#all + 1] = { token, claim } end) -- before the first write: one that cannot be read stops it all
for _, pair in ipairs(all) do
  local token, claim = pair[1], pair[2]
  claim.capacity = capacity
  if not holding(claim) and claim.weight > capacity then
    wake(token, claim)
    remove(token, claim)
  else
    save(token, claim)
  end
end
crowd = true -- assume so until it is checked
offer()
keep()
return #all
