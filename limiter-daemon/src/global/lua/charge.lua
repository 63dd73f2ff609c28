-- Takes the tokens of one request from all its buckets, or from none.
--
-- ARGV[4]: limits that deny it whatever is counted. Then for each key a role (`e` enforced, `s` in
-- shadow mode, `c` candidate of the limit before it, `q` quota: all such together deny, `g` gives
-- back first), a kind (`b` bucket, `f` fixed window, `s` sliding window, `p` plain count of a window)
-- and seven numbers. Of what is given back they are the worth in seconds and nanoseconds, or the
-- tokens, and then as for a charge. After all of these there may be for each key how many times more
-- its tokens are taken, if all limits admit, as often as they are there.
--
-- Answers with the time in seconds and microseconds, and for each key four numbers: 0 denied, 1
-- admitted, 2 not asked, 3 of another window (then nothing was changed); and the state that it has
-- now. After these, if that was asked, for each key how many times more its tokens were taken.
local tail = 4 + #KEYS * 9
local grants = ARGV[tail + 1] ~= nil
local items, times, other = {}, {}, false
for i = 1, #KEYS do
  local at = 4 + (i - 1) * 9
  local it = { key = KEYS[i], role = ARGV[at + 1], kind = ARGV[at + 2] }
  for j = 1, 7 do
    it[j] = tonumber(ARGV[at + 2 + j])
  end
  it.said, it.granted = 2, 0
  it.again = grants and tonumber(ARGV[tail + i]) or 0
  load(it)
  other = other or it.other
  times[it.key] = (times[it.key] or 0) + 1
  items[i] = it
end

-- A key that is there twice has been changed since it was read, maybe.
local function anew(it)
  if times[it.key] > 1 then
    load(it)
  end
end

local function give_back(it)
  if it.kind == 'b' then
    local cs, cn = it[1], it[2]
    if more(cs, cn, it.ds, it.dn) then
      cs, cn = it.ds, it.dn
    end
    it.ds, it.dn = minus(it.ds, it.dn, cs, cn)
  else
    it.count = math.max(0, it.count - it[1])
  end
  save(it)
end

local function conforms(it)
  if it.kind == 'b' then
    local ds, dn = plus(it.ds, it.dn, it[1], it[2])
    return not more(it[1], it[2], it[3], it[4]) and not more(ds, dn, it[3], it[4])
  end
  local used = it.count
  if it.kind == 's' then
    local left = it[4] * 1000000
    if not it.ahead then
      left = (it.e - s) * 1000000 - us
    end
    left = math.min(math.ceil(left / it[6]), it[5])
    used = used + math.ceil(it.last * left / it[5])
  end
  it.used = used
  return used + it[1] <= it[3]
end

-- Of a bucket that conforms: how many times more it would, and what that costs.
local function more_of_bucket(it)
  local ds, dn = plus(it.ds, it.dn, it[1], it[2])
  local rs, rn = minus(it[3], it[4], ds, dn)
  local function cost(k)
    local all = it[2] * k
    return it[1] * k + math.floor(all / G), all % G
  end
  local function fits(k)
    local cs, cn = cost(k)
    return not more(cs, cn, rs, rn)
  end
  local k = math.min(it.again, math.floor((rs * G + rn) / (it[1] * G + it[2])))
  while k > 0 and not fits(k) do
    k = k - 1
  end
  while k < it.again and fits(k + 1) do
    k = k + 1
  end
  local cs, cn = cost(k)
  return k, cs, cn
end

local function take(it)
  it.bs, it.bn, it.before = it.ds, it.dn, it.count
  if it.kind == 'b' then
    if it[7] == 1 then
      local cs, cn = 0, 0
      if it.again > 0 then
        it.granted, cs, cn = more_of_bucket(it)
      end
      it.ds, it.dn = plus(it.ds, it.dn, it[1], it[2])
      it.ds, it.dn = plus(it.ds, it.dn, cs, cn)
      save(it)
    end
  elseif it[2] > 0 then
    if it.again > 0 then
      it.granted = math.min(it.again, math.floor((it[3] - it.used - it[1]) / it[2]))
    end
    it.count = it.count + it[2] * (1 + it.granted)
    save(it)
  end
end

local function ask(it, takes)
  if not conforms(it) then
    it.said = 0
    if it.moved then
      save(it)
    end
    return false
  end
  it.said = 1
  if takes then
    take(it)
  end
  return true
end

-- How many deny the request, and which of those that are enforced was the last.
local function denying()
  local denials, by, quotas, left = tonumber(ARGV[4]), 0, 0, 0
  for i, it in ipairs(items) do
    if it.role == 'e' and it.said == 0 then
      denials, by = denials + 1, i
    elseif it.role == 'q' then
      quotas, left = quotas + 1, left + it.said
    end
  end
  if quotas > 0 and left == 0 then
    denials = denials + 1
  end
  return denials, by
end

-- Those that deny, alone or together, are charged before the others are asked.
local function charge()
  for _, it in ipairs(items) do
    if it.role == 'e' or it.role == 'q' then
      anew(it)
      ask(it, false)
    end
  end
  local denials, by = denying()
  for i, it in ipairs(items) do
    if denials == 0 and it.said == 1 and (it.role == 'e' or it.role == 'q') then
      anew(it)
      if not ask(it, true) then
        denials, by = denying()
        if denials > 0 then
          for j = i - 1, 1, -1 do
            local taken = items[j]
            if taken.before or taken.bs then
              anew(taken)
              taken.ds, taken.dn, taken.count = taken.bs, taken.bn, taken.before
              taken.granted = 0
              save(taken)
            end
          end
        end
      end
    end
  end
  local current = 0
  for i, it in ipairs(items) do
    if it.role ~= 'c' then
      current = i
    end
    if it.role == 's' or it.role == 'c' then
      if denials == 0 or (it.role == 'c' and denials == 1 and by == current) then
        anew(it)
        ask(it, true)
      end
    end
  end
end

if not other then
  for _, it in ipairs(items) do
    if it.role == 'g' then
      anew(it)
      give_back(it)
      it.said = 1
    end
  end
  charge()
end

local answer = { s, us }
for _, it in ipairs(items) do
  anew(it)
  answer[#answer + 1] = other and 3 or it.said
  if it.kind == 'b' then
    answer[#answer + 1] = it.ds
    answer[#answer + 1] = it.dn
    answer[#answer + 1] = 0
  else
    answer[#answer + 1] = it.e
    answer[#answer + 1] = it.count
    answer[#answer + 1] = it.last
  end
end
if grants then
  for _, it in ipairs(items) do
    answer[#answer + 1] = it.granted
  end
end
return answer
