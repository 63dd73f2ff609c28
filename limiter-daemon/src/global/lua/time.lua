-- Instants and amounts are pairs of whole seconds and nanoseconds: Lua's numbers are doubles, exact
-- up to 2^53, and a nanosecond since 1970 is beyond that. ARGV[1], ARGV[2]: the time to go by in
-- seconds and microseconds; empty: this server's. ARGV[3]: milliseconds that keys live on.
local G = 1000000000

local s, us
if ARGV[1] == '' then
  local time = redis.call('TIME')
  s, us = tonumber(time[1]), tonumber(time[2])
else
  s, us = tonumber(ARGV[1]), tonumber(ARGV[2])
end
local n = us * 1000
local keep = tonumber(ARGV[3])
