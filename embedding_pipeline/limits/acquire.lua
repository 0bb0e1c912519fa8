-- One step on the state of one limit, as in sharing.py and line.py; comments are there. Its
-- constants and buckets are in buckets.lua, which stands before it in the script.

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
