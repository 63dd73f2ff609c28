-- What the scripts of the fleet share. KEYS are the same in all of them:
local nodes, epoch, blocks, ends, events, count = unpack(KEYS)

-- Blocks that are over and removed at a time, at most.
local BATCH = 128

local function text(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
-- Milliseconds since 1970, by this server.
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function forget(cidrs)
  if #cidrs > 0 then
    redis.call('HDEL', blocks, unpack(cidrs))
    redis.call('ZREM', ends, unpack(cidrs))
  end
end

local function expire()
  forget(redis.call('ZRANGEBYSCORE', ends, '-inf', text(now), 'LIMIT', 0, BATCH))
end

-- Events have numbers, so that whoever misses one notices.
local function tell(kept, what, cidr, value)
  local number = redis.call('INCR', count)
  return redis.call('XADD', events, 'MAXLEN', '~', kept, '*',
    'number', number, 'what', what, 'cidr', cidr, 'value', value)
end
