-- Lifts a block for the fleet.
-- ARGV: CIDR, by whom and why (JSON), the end up to which it is meant ('': any), events kept.
-- Answers the event that told it; '' if there was no such block.
local cidr, meant = ARGV[1], tonumber(ARGV[3])
expire()
local score = redis.call("ZSCORE", ends, cidr)
local known = score and tonumber(score)
if not known or (meant and known > meant) then
  return ''
end
forget({ cidr })
if known <= now then
  return ''
end
return tell(ARGV[4], 'lift', cidr, ARGV[2])
