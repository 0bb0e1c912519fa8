-- Units: instants and durations in ms, rates in units a minute, levels in 1/60000 unit, tags in µs.
-- One step on the state of one limit, as in sharing.py, line.py and buckets.py; comments are there.
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

-- buckets ------------------------------------------------------------------------------------

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

-- the state ----------------------------------------------------------------------------------

local now = clock()
local stored = redis.call("GET", KEYS[1])
local state
if stored then
  state = cjson.decode(stored)
else
  state = {at = now, blocked_until = 0, tags = {}, served = {now, now, now}, clients = {},
           totals = {}, refusals = {0, 0},
           tokens = new_bucket(MOST_TOKENS, SAFE_TOKENS, terms.tokens, now),
           requests = new_bucket(MOST_REQUESTS, SAFE_REQUESTS, terms.requests, now)}
end
local tokens, requests = state.tokens, state.requests
for _, b in ipairs({tokens, requests}) do
  b.since, b.served, b.found = b.since or 0, b.served or 0, b.found or 0
end

local function rewind(by)
  for _, b in ipairs({tokens, requests}) do
    if b.eased_at > 0 then b.eased_at = max(b.eased_at - by, 1) end
    b.grown_at, b.since = b.grown_at - by, 0
  end
  for i, at in ipairs(state.served) do state.served[i] = at - by end
  state.blocked_until, state.at, state.clients = state.blocked_until - by, state.at - by, {}
end

local function advance()
  local elapsed = now - state.at
  limit_by(tokens, terms.tokens)
  limit_by(requests, terms.requests)
  take(tokens, -ask.returned[1])
  take(requests, -ask.returned[2])
  refill(tokens, elapsed)
  refill(requests, elapsed)
  state.at = now
end

local function add(project, priority, permits, spent, waited, refused)
  local name = project .. "|" .. priority
  if not state.totals[name] then
    local size = 0
    for _ in pairs(state.totals) do size = size + 1 end
    if size >= MOST_TOTALS then name = OTHERS .. "|" .. priority end
  end
  local total = state.totals[name] or {0, 0, 0, 0}
  state.totals[name] = {total[1] + permits, total[2] + spent, total[3] + waited,
                        (total[4] or 0) + refused}
end

local function hear(news)
  local out_tokens, out_requests = ask.out[1], ask.out[2]
  for name, client in pairs(state.clients) do
    if name ~= ask.client and now - client.seen < OUT_MS then
      out_tokens, out_requests = out_tokens + client.out[1], out_requests + client.out[2]
    end
  end
  local refusal = news.kind ~= "ok"
  local cost = refusal and 1 or news.tokens
  local rate_tokens, rate_requests = tokens.rate, requests.rate
  learn(tokens, news.limits[1], news.remaining[1], out_tokens, cost)
  learn(requests, news.limits[2], news.remaining[2], out_requests, 1)
  if not refusal then
    acknowledge(tokens, now)
    acknowledge(requests, now)
    return
  end
  local sustained = news.sustained
  if news.resource ~= "requests" then
    refuse(tokens, rate_tokens, news.tokens, sustained[1], news, now)
  end
  if news.resource ~= "tokens" then refuse(requests, rate_requests, 1, sustained[2], news, now) end
  state.blocked_until = max(state.blocked_until, now + min(news.retry_after, LONGEST_BLOCK_MS))
  local kind = news.kind == "ramp" and 2 or 1
  state.refusals[kind] = state.refusals[kind] + 1
  add(news.project, news.priority, 0, 0, 0, 1)
end

local function post()
  local clients, wants = {}, {}
  for name, client in pairs(state.clients) do
    if now - client.seen < CLIENT_MS then clients[name] = client end
  end
  for i, w in ipairs(ask.wants) do
    wants[i] = {w.project, w.weight, w.priority, now - w.age, w.tokens}
  end
  clients[ask.client] = {seen = now, out = ask.out, wants = wants}
  if #wants == 0 and ask.out[1] == 0 and ask.out[2] == 0 then clients[ask.client] = nil end
  state.clients = clients
  for _, b in ipairs({tokens, requests}) do
    grow(b, now, #wants > 0)
    refill(b, 0)
  end
end

-- the line -----------------------------------------------------------------------------------

local flows, projects, lead = {}, {}, nil
local low = 0

local function earlier(a, b)
  if a.since ~= b.since then return a.since < b.since end
  if a.client ~= b.client then return a.client < b.client end
  return a.index < b.index
end

local function line_up()
  local by_name, present = {}, {}
  for name, client in pairs(state.clients) do
    if now - client.seen < WANTS_MS then
      for i, w in ipairs(client.wants) do
        local flow = w[3] .. "|" .. w[1]
        if not by_name[flow] then
          by_name[flow] = {project = w[1], priority = w[3], places = {}, head = 1}
          table.insert(flows, by_name[flow])
        end
        projects[w[1]], present[w[3]] = true, true
        table.insert(by_name[flow].places, {since = w[4], client = name, index = i - 1,
          project = w[1], weight = w[2], priority = w[3], tokens = w[5]})
      end
    end
  end
  for _, flow in ipairs(flows) do table.sort(flow.places, earlier) end
  for p = 0, 2 do
    if not present[p] then state.served[p + 1] = now end
  end
  lead = {tokens = {}, requests = {}, tags = {}, served = {}}
  for _, name in ipairs({"tokens", "requests"}) do
    for k, v in pairs(state[name]) do lead[name][k] = v end
  end
  for k, v in pairs(state.tags) do lead.tags[k] = v end
  for k, v in pairs(state.served) do lead.served[k] = v end
end

local function rank(flow)
  local head, since = flow.places[flow.head], lead.served[flow.priority + 1]
  local first, order = flow.priority, 0
  if flow.priority ~= 0 and now - since >= AGEING_MS then first, order = -1, since end
  return {first, order, lead.tags[flow.project] or 0, head.since, head.client, head.index}
end

local function before(a, b)
  for i = 1, 6 do
    if a[i] ~= b[i] then return a[i] < b[i] end
  end
  return false
end

local function next_place()
  local chosen, best
  for _, flow in ipairs(flows) do
    if flow.head <= #flow.places then
      local this = rank(flow)
      if not best or before(this, best) then chosen, best = flow, this end
    end
  end
  chosen.head = chosen.head + 1
  return chosen.places[chosen.head - 1], best[1]
end

local function charge(b_tokens, b_requests, place)
  local spent = max(floor(place.tokens * MICROS / b_tokens.rate), floor(MICROS / b_requests.rate))
  return floor(min(spent, LONGEST_US) * 1000 / place.weight)
end

local function move(place)
  lead.tokens.level = lead.tokens.level - place.tokens * UNIT
  lead.requests.level = lead.requests.level - UNIT
  lead.tags[place.project] = (lead.tags[place.project] or 0)
    + charge(lead.tokens, lead.requests, place)
  lead.served[place.priority + 1] = now
end

local function give(place)
  move(place)
  take(tokens, place.tokens)
  take(requests, 1)
  local lowest
  for project in pairs(projects) do
    local tag = state.tags[project] or 0
    if not lowest or tag < lowest then lowest = tag end
  end
  low = max(low, lowest)
  state.tags[place.project] = max(low, state.tags[place.project] or 0)
    + charge(tokens, requests, place)
  state.served[place.priority + 1] = now
  add(place.project, place.priority, 1, place.tokens, now - place.since, 0)
end

local function wait(place, first)
  local reserve = first > 0 and terms.reserve or 0
  return max(wait_for(lead.tokens, place.tokens, reserve), wait_for(lead.requests, 1, reserve))
end

local function settle(granted)
  if #granted > 0 then
    local mine, given, wants, out = state.clients[ask.client], {}, {}, {0, 0}
    for _, index in ipairs(granted) do given[index] = true end
    out[1], out[2] = mine.out[1], mine.out[2] + #granted
    for i, want in ipairs(mine.wants) do
      if given[i - 1] then out[1] = out[1] + want[5] else table.insert(wants, want) end
    end
    mine.out, mine.wants = out, wants
  end
  local tags = {}
  for name, tag in pairs(state.tags) do
    if tag > low then tags[name] = tag - low end
  end
  state.tags = tags
end

local function grant()
  line_up()
  local blocked = max(state.blocked_until - now, 0)
  local granted, ahead, places, retry_after = {}, {}, {}, 0
  while #granted < #ask.wants do
    local place, first = next_place()
    if place.client ~= ask.client then
      move(place)
      if not places[place.project] then
        places[place.project] = {place.project, 0, 0}
        table.insert(ahead, places[place.project])
      end
      local entry = places[place.project]
      entry[2], entry[3] = entry[2] + 1, entry[3] + place.tokens
    else
      retry_after = max(wait(place, first), blocked)
      if retry_after > 0 then break end
      give(place)
      table.insert(granted, place.index)
    end
  end
  settle(granted)
  table.sort(granted)
  return {now = now, granted = granted, retry_after = retry_after, ahead = ahead,
          rates = {tokens.rate, requests.rate}, known = {bounded(tokens), bounded(requests)}}
end

if state.at - now > BACK_MS then rewind(state.at - now) end
now = max(now, state.at)
advance()
for _, news in ipairs(ask.news) do hear(news) end
post()
local answer = grant()
redis.call("SET", KEYS[1], cjson.encode(state), "PX", KEPT_MS)
return cjson.encode(answer)
