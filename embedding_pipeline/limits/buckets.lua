-- Units: instants and durations in ms, rates in units a minute, levels in 1/60000 unit, tags in µs.
-- The buckets of one limit, as in buckets.py; comments are there. acquire.lua goes on from here.
-- KEYS[1]: the state. ARGV[1]: terms and ask as JSON. ARGV[2]: the instant, or "" for the server's.
-- Every number is whole and below 2^53, so that doubles are exact.

local UNIT, FULL_MS, LONGEST_MS = 60000, 1000000, 60000
local SAFE_TOKENS, SAFE_REQUESTS = 40000, 60
local MOST_TOKENS, MOST_REQUESTS = 1000000000, 10000000
local EASE, EASE_RAMP, QUICK, CREEP, QUICK_BLIND = 70, 50, 20, 1, 250
local EASE_MEASURED, MEASURE_MS, ANEW_MS = 90, 60000, 30000
local AGREE_LOW, AGREE_HIGH = 94, 110
local EASE_BLIND, LEAST, LEAST_SAFE, BACK_MS = 30, 20, 4, 2000
local RAMP_FROM, RAMP_MS = 1000000, 1800000
local OUT_MS, CLIENT_MS, WANTS_MS, AGEING_MS, LONGEST_BLOCK_MS = 10000, 60000, 5000, 10000, 600000
local MICROS, LONGEST_US, MOST_TOTALS, OTHERS = 60000000, 10000000000, 256, "…"
local KEPT_MS = 604800000

local input = cjson.decode(ARGV[1])
local terms, ask = input.terms, input.ask
local span = terms.burst + terms.reserve
local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max

local function clock()
  if ARGV[2] ~= "" then return tonumber(ARGV[2]) end
  local time = redis.call("TIME")
  return tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)
end

local function known(b) return b.set > 0 or b.limit > 0 end

local function bounded(b) return known(b) or b.eased_at > 0 end

local function ceiling(b)
  if b.set > 0 and b.limit > 0 then return min(b.set, b.limit) end
  if b.set > 0 then return b.set end
  if b.limit > 0 then return b.limit end
  return b.most
end

local function safe(b)
  if b.most == MOST_TOKENS then return SAFE_TOKENS end
  return SAFE_REQUESTS
end

local function least(b)
  if known(b) then return max(floor(ceiling(b) / LEAST), 1) end
  return floor(safe(b) / LEAST_SAFE)
end

local function hold_to_ramp(b, before, ramp)
  local start = max(before, RAMP_FROM)
  if ramp == 0 or b.rate <= start or b.most ~= MOST_TOKENS then return end
  b.rate, b.ramping = start, 1
end

local function new_bucket(most, safe, set, now)
  local rate = set
  if rate == 0 then rate = safe end
  local b = {most = most, set = set, limit = 0, rate = rate, level = 0, failed = 0,
             eased_at = 0, grown_at = now, ramping = 0, since = 0, served = 0, found = 0}
  hold_to_ramp(b, 0, terms.ramp)
  b.level = b.rate * span
  return b
end

local function refill(b, elapsed)
  b.level = min(b.level + min(elapsed, FULL_MS) * b.rate, b.rate * span)
end

local function take(b, cost)
  b.level, b.served = b.level - cost * UNIT, b.served + cost
end

local function wait_for(b, cost, reserve)
  local need = min(cost * UNIT, b.rate * (span - reserve)) + b.rate * reserve
  local short = need - b.level
  if short <= 0 then return 0 end
  return ceil(short / b.rate)
end

local function limit_by(b, set)
  if set == b.set then return end
  b.set, b.failed, b.eased_at, b.ramping, b.since = set, 0, 0, 0, 0
  if known(b) then b.rate = ceiling(b) end
end

local function learn(b, limit, remaining, out, cost)
  if limit < max(cost, 1) or limit > b.most then return end
  local first, before = not known(b), ceiling(b)
  b.limit = limit
  if (first and b.eased_at == 0) or b.rate >= before then
    local rate = b.rate
    b.rate = ceiling(b)
    hold_to_ramp(b, rate, terms.ramp)
  else
    b.rate = min(b.rate, ceiling(b))
  end
  if remaining >= 0 and remaining <= limit then
    local left = (remaining - out) * UNIT
    if first then b.level = left else b.level = min(b.level, left) end
  elseif first then
    b.level = max(b.level, 0)
  end
end

local function acknowledge(b, now)
  if bounded(b) then return end
  b.rate, b.level, b.grown_at = b.most, b.most * LONGEST_MS, now
end

local function measured(b, cost, now)
  local elapsed = now - b.since
  if b.since == 0 or now - b.eased_at > MEASURE_MS or elapsed <= 0 then return 0 end
  return floor(max(b.served + cost, 1) * UNIT / elapsed)
end

local function agree(found, before)
  return found > 0 and before * AGREE_LOW <= found * 100 and found * 100 <= before * AGREE_HIGH
end

local function hold_at(b, sustained)
  if not known(b) then b.rate = max(b.rate, sustained) end
end

local function refuse(b, rate_before, cost, sustained, news, now)
  b.level = min(b.level, 0)
  if b.rate < rate_before then
    b.failed, b.eased_at, b.grown_at, b.since, b.served = rate_before, now, now, now, 0
    return
  end
  if news.granted_at > b.since then b.served = b.served - cost end
  if news.kind == "ramp" then sustained = 0 end
  if news.granted_at <= b.eased_at then return hold_at(b, min(sustained, b.most)) end
  local per_cent, found, rate = EASE, measured(b, cost, now), b.rate
  if news.kind == "ramp" then per_cent, found, b.ramping = EASE_RAMP, 0, 1 end
  if not known(b) then per_cent = min(per_cent, EASE_BLIND) end
  b.failed = rate
  if found > 0 then per_cent, b.failed = EASE_MEASURED, min(found, rate) end
  b.rate = min(max(floor(b.failed * per_cent / 100), least(b)), rate)
  if not known(b) and rate == b.most then b.rate = safe(b) end
  if not known(b) and not agree(found, b.found) then b.failed = b.most end
  hold_at(b, min(sustained, rate))
  b.found, b.eased_at, b.grown_at = found, now, now
  if found == 0 or now - b.since >= ANEW_MS then b.since, b.served = now, 0 end
end

local function step(b, top, elapsed, now)
  if b.ramping > 0 and b.rate >= RAMP_FROM then return floor(b.rate * elapsed / RAMP_MS) end
  local base, pace = max(b.rate, safe(b)), QUICK_BLIND
  if known(b) then base, pace = top, QUICK end
  if b.rate * 100 >= b.failed * 95 then
    local seconds = floor(min(now - b.eased_at, LONGEST_MS) / 1000)
    pace = min(CREEP + floor(seconds * seconds / 100), pace)
  end
  return floor(base * pace * elapsed / 1000000)
end

local function grow(b, now, hungry)
  local top, climbs = ceiling(b), b.eased_at > 0 or b.ramping > 0
  if not hungry or not climbs or b.rate >= top then
    if climbs or known(b) then b.grown_at = now end
    return
  end
  local more = step(b, top, min(now - b.grown_at, LONGEST_MS), now)
  if more == 0 then return end
  more = min(more, top - b.rate)
  b.level = b.level + floor(max(b.level, 0) / b.rate) * more
  b.rate, b.grown_at = b.rate + more, now
  if b.rate == top then b.ramping = 0 end
end
