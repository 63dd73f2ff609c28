-- One limit that is enforced, and nothing else: what most requests ask. It comes to the same as what
-- is done for several (`charge.lua`), without the functions and tables that these need, which take
-- several times as long as the rest.
if #KEYS == 1 and ARGV[4] == '0' and ARGV[5] == 'e' and not ARGV[14] then
  local key, kind, said = KEYS[1], ARGV[6], 0
  if kind == 'b' then
    local ds, dn = 0, 0
    local over = false
    local text = redis.call('GET', key)
    if text then
      local colon = string.find(text, ':', 1, true)
      ds = tonumber(string.sub(text, 1, colon - 1)) - s
      dn = tonumber(string.sub(text, colon + 1)) - n
      if dn < 0 then
        ds, dn = ds - 1, dn + G
      end
      if ds < 0 then
        ds, dn = 0, 0
      end
      local deepest_s, deepest_n = tonumber(ARGV[11]), tonumber(ARGV[12])
      if ds > deepest_s or (ds == deepest_s and dn > deepest_n) then
        ds, dn, over = deepest_s, deepest_n, true
      end
    end
    local cs, cn = ds + tonumber(ARGV[7]), dn + tonumber(ARGV[8])
    if cn >= G then
      cs, cn = cs + 1, cn - G
    end
    local full = tonumber(ARGV[9])
    local save = over
    if cs < full or (cs == full and cn <= tonumber(ARGV[10])) then
      said, save = 1, ARGV[13] == '1'
      if save then
        ds, dn = cs, cn
      end
    end
    if save then
      local ts, tn = s + ds, n + dn
      if tn >= G then
        ts, tn = ts + 1, tn - G
      end
      local ms = ds * 1000 + math.ceil(dn / 1000000) + keep + 1
      redis.call('SET', key, ts .. ':' .. tn, 'PX', ms)
    end
    return { s, us, said, ds, dn, 0 }
  end
  if kind == 'p' then
    local length, begins = tonumber(ARGV[10]), tonumber(ARGV[12])
    local count = tonumber(redis.call('GET', key) or '0')
    if math.floor(s / length) * length ~= begins then
      said = 3
    elseif count + tonumber(ARGV[7]) <= tonumber(ARGV[9]) then
      said = 1
      local taken = tonumber(ARGV[8])
      if taken > 0 then
        count = count + taken
        redis.call('INCRBY', key, string.format('%.0f', taken))
        redis.call('EXPIRE', key, string.format('%.0f', length + us % 301 + keep / 1000))
      end
    end
    return { s, us, said, begins + length, count, 0 }
  end
  if kind == 'f' then
    local length = tonumber(ARGV[10])
    local e, count, last, over = (math.floor(s / length) + 1) * length, 0, 0, false
    local text = redis.call('GET', key)
    if text then
      local found, c, l = string.match(text, '^(%d+):(%d+):(%d+)$')
      found, c, l = tonumber(found), tonumber(c), tonumber(l)
      if found == e or found == e + length then
        e, count, last = found, c, l
      elseif found > e then
        count, last, over = c, l, true
      elseif found == e - length then
        last = c
      end
    end
    local save = over
    if count + tonumber(ARGV[7]) <= tonumber(ARGV[9]) then
      local taken = tonumber(ARGV[8])
      said, save = 1, taken > 0
      count = count + taken
    end
    if save and count == 0 then
      redis.call('DEL', key)
    elseif save then
      count = math.min(count, tonumber(ARGV[13]))
      local state = string.format('%.0f:%.0f:%.0f', e, count, last)
      redis.call('SET', key, state, 'PX', (e - s) * 1000 + keep + 1)
    end
    return { s, us, said, e, count, last }
  end
end
