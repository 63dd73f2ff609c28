-- Blocks a network for the fleet, or for longer if it is already.
-- ARGV: CIDR, milliseconds that are left, milliseconds since it was passed, by whom and why (the members
-- of a JSON object and its end), blocks at most, events kept.
-- Answers 'full'; or the block, and the event that told it, '' if it was told before.
-- Milliseconds by which an end may differ and be the same.
local SAME = 1000
local cidr, left = ARGV[1], tonumber(ARGV[2])
local over = now + left
local since = now - tonumber(ARGV[3])
expire()
local known = redis.call('ZSCORE', ends, cidr)
if known and tonumber(known) > now then
  local value = redis.call('HGET', blocks, cidr)
  -- Nodes that tell it again after it was forgotten differ by less.
  if tonumber(known) + SAME >= over then
    return { value, '' }
  end
  since = tonumber(string.match(value, '"since":(%d+)')) or since
elseif not known and redis.call('ZCARD', ends) >= tonumber(ARGV[5]) then
  local shortest = redis.call('ZRANGE', ends, 0, 0, 'WITHSCORES')
  if tonumber(shortest[2]) >= over then
    return { 'full' }
  end
  forget({ shortest[1] })
  tell(ARGV[6], 'lift', shortest[1], '{"by":"","why":"the table is full, and it ended soonest"}')
end
local value = '{"since":' .. text(since) .. ',"until":' .. text(over) .. ',' .. ARGV[4]
redis.call('HSET', blocks, cidr, value)
redis.call('ZADD', ends, text(over), cidr)
return { value, tell(ARGV[6], 'block', cidr, value) }
