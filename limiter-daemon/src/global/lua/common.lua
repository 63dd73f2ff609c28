-- What is done to one key, whatever it is asked for.
local function more(as, an, bs, bn)
  return as > bs or (as == bs and an > bn)
end

local function plus(as, an, bs, bn)
  local cs, cn = as + bs, an + bn
  if cn >= G then
    return cs + 1, cn - G
  end
  return cs, cn
end

-- Of the larger the smaller.
local function minus(as, an, bs, bn)
  local cs, cn = as - bs, an - bn
  if cn < 0 then
    return cs - 1, cn + G
  end
  return cs, cn
end

-- A state of nothing is no key; any other goes when it comes to nothing.
local function put(key, text, ms)
  redis.call('SET', key, text, 'PX', string.format('%.0f', ms + keep + 1))
end

-- Token bucket (GCRA). The text is the TAT, `seconds:nanoseconds`; d is how far it is ahead.
-- Numbers of an item: cost, tolerance (a full bucket), deepest debt.
local function load_bucket(it)
  it.ds, it.dn = 0, 0
  local text = redis.call('GET', it.key)
  if text then
    local ts, tn = string.match(text, '^(%d+):(%d+)$')
    ts, tn = tonumber(ts), tonumber(tn)
    if more(ts, tn, s, n) then
      it.ds, it.dn = minus(ts, tn, s, n)
    end
    if more(it.ds, it.dn, it[5], it[6]) then
      it.ds, it.dn, it.moved = it[5], it[6], true
    end
  end
end

local function save_bucket(it)
  if it.ds == 0 and it.dn == 0 then
    redis.call('DEL', it.key)
    return
  end
  local ts, tn = plus(s, n, it.ds, it.dn)
  put(it.key, string.format('%.0f:%.0f', ts, tn), it.ds * 1000 + math.ceil(it.dn / 1000000))
end

-- Windows. The text is `end:count:last`: the second at which the window ends that is counted in, its
-- count and that of the one before. Numbers of an item: tokens, taken, capacity, length in seconds,
-- grains of a window, microseconds of a grain, the largest count.
local function load_window(it)
  local length = it[4]
  it.e = (math.floor(s / length) + 1) * length
  it.count, it.last = 0, 0
  local text = redis.call('GET', it.key)
  if text then
    local e, count, last = string.match(text, '^(%d+):(%d+):(%d+)$')
    e, count, last = tonumber(e), tonumber(count), tonumber(last)
    if e == it.e then
      it.count, it.last = count, last
    elseif e == it.e + length then
      -- Begun already, by a clock that was ahead: what was charged stays charged.
      it.e, it.count, it.last, it.ahead = e, count, last, true
    elseif e > it.e then
      it.count, it.last, it.moved = count, last, true
    elseif e == it.e - length then
      it.last = count
    end
  end
end

local function save_window(it)
  if it.count == 0 and (it.kind == 'f' or it.last == 0) then
    redis.call('DEL', it.key)
    return
  end
  if it.count > it[7] then
    it.count = it[7]
  end
  local ms = (it.e - s) * 1000
  if it.kind == 's' then
    ms = ms + it[4] * 1000
  end
  put(it.key, string.format('%.0f:%.0f:%.0f', it.e, it.count, it.last), ms)
end

-- A plain count, which others add to by INCRBY as well; so it is changed by a difference. The key is of
-- one window, which the sixth number says the beginning of. It lives on for a window, and up to five
-- minutes more: then not all keys of a window end at once.
local function load_plain(it)
  it.e, it.last = it[6] + it[4], 0
  it.other = math.floor(s / it[4]) * it[4] ~= it[6]
  it.found = tonumber(redis.call('GET', it.key) or '0')
  it.count = it.found
end

local function save_plain(it)
  if it.count == it.found then
    return
  end
  redis.call('INCRBY', it.key, string.format('%.0f', it.count - it.found))
  redis.call('EXPIRE', it.key, string.format('%.0f', it[4] + us % 301 + keep / 1000))
  it.found = it.count
end

local function load(it)
  if it.kind == 'b' then
    load_bucket(it)
  elseif it.kind == 'p' then
    load_plain(it)
  else
    load_window(it)
  end
end

local function save(it)
  if it.kind == 'b' then
    save_bucket(it)
  elseif it.kind == 'p' then
    save_plain(it)
  else
    save_window(it)
  end
end
