-- This node lives; who else does.
-- ARGV: id, milliseconds that it has run, what it says of itself, milliseconds of silence after which
-- a node is gone, an epoch if there is none, nodes at most, the event that it has heard of.
-- Answers the time, the epoch, the last event, how many there have been, the number of blocks;
-- and of each node id, milliseconds since its beat, since when it runs, 1 if it had heard of all events
-- then, what it says.
local id, gone = ARGV[1], tonumber(ARGV[4])
redis.call('SET', epoch, ARGV[5], 'NX')
expire()
if redis.call('HLEN', nodes) >= tonumber(ARGV[6]) and redis.call('HEXISTS', nodes, id) == 0 then
  return redis.error_reply('FLEETFULL too many nodes')
end

local newest = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
local last = newest and newest[1] or '0-0'
local up = ARGV[7] == last and '1' or '0'
local said = { text(now), text(now - tonumber(ARGV[2])), up, ARGV[3] }
redis.call('HSET', nodes, id, table.concat(said, ' '))
redis.call('PEXPIRE', nodes, gone * 6)
local answer = { text(now), redis.call('GET', epoch), last, redis.call('GET', count) or '0', text(redis.call('HLEN', blocks)) }
local all = redis.call('HGETALL', nodes)
for index = 1, #all, 2 do
  local beat, since, heard, about = string.match(all[index + 1], '^(%d+) (%d+) ([01]) (.*)$')
  -- The clock may have stepped, or be another server's.
  if beat and math.abs(now - tonumber(beat)) <= gone then
    local silent = text(math.max(now - tonumber(beat), 0))
    for _, part in ipairs({ all[index], silent, since, heard, about }) do
      answer[#answer + 1] = part
    end
  else
    redis.call('HDEL', nodes, all[index])
  end
end
return answer
