-- Gives tokens back, or takes more of them, into debt if need be.
--
-- For each key what to do (`g` give back, `c` charge), a kind and seven numbers: of buckets the worth
-- of the tokens, the TAT after they were taken, the deepest debt; of windows the tokens, the end of
-- the window that they were counted in, and the rest as for a charge. What time has given back
-- already is not given back again.
for i = 1, #KEYS do
  local at = 3 + (i - 1) * 9
  local what = ARGV[at + 1]
  local it = { key = KEYS[i], kind = ARGV[at + 2] }
  for j = 1, 7 do
    it[j] = tonumber(ARGV[at + 2 + j])
  end
  load(it)
  if it.kind == 'b' then
    local cs, cn = it[1], it[2]
    if what == 'g' then
      local os, on = 0, 0
      if more(it[3], it[4], s, n) then
        os, on = minus(it[3], it[4], s, n)
      end
      if more(cs, cn, os, on) then
        cs, cn = os, on
      end
      if more(cs, cn, it.ds, it.dn) then
        cs, cn = it.ds, it.dn
      end
      it.ds, it.dn = minus(it.ds, it.dn, cs, cn)
    else
      it.ds, it.dn = plus(it.ds, it.dn, cs, cn)
      if more(it.ds, it.dn, it[5], it[6]) then
        it.ds, it.dn = it[5], it[6]
      end
    end
    save(it)
  elseif what == 'c' then
    it.count = it.count + it[1]
    save(it)
  elseif it[2] == it.e then
    it.count = math.max(0, it.count - it[1])
    save(it)
  elseif it[2] == it.e - it[4] then
    it.last = math.max(0, it.last - it[1])
    save(it)
  end
end
return 1
