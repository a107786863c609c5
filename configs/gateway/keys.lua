-- Authenticates requests. The SHA-256 of the API key in `x-api-key` or `Authorization: Bearer` must be in ENTRIES, which
-- serving/gateway/envoy/filters.py writes. A line for each key: hash, name, second from which it is refused (0: never),
-- cost of a request, scopes that it lacks. A key is 256 random bits, so that one unsalted hash is enough.
local ENTRIES = [[]]

local bit = require("bit")
local band, bnot, bxor, ror, rshift, tobit = bit.band, bit.bnot, bit.bxor, bit.ror, bit.rshift, bit.tobit
local HASH, ROUND = {}, {} -- FIPS 180-4: fractions of the square and cube roots of the first primes

local candidate = 2
while #ROUND < 64 do
  local prime = true
  for divisor = 2, math.floor(math.sqrt(candidate)) do
    if candidate % divisor == 0 then prime = false break end
  end
  if prime then
    ROUND[#ROUND + 1] = tobit(math.floor(candidate ^ (1 / 3) % 1 * 2 ^ 32))
    if #HASH < 8 then HASH[#HASH + 1] = tobit(math.floor(candidate ^ (1 / 2) % 1 * 2 ^ 32)) end
  end
  candidate = candidate + 1
end

local function sha256(text)
  local bits = #text * 8
  text = text .. "\128" .. string.rep("\0", (55 - #text) % 64) .. string.rep("\0", 4)
    .. string.char(band(rshift(bits, 24), 255), band(rshift(bits, 16), 255), band(rshift(bits, 8), 255), band(bits, 255))
  local h1, h2, h3, h4, h5, h6, h7, h8 = unpack(HASH)
  local w = {}
  for block = 1, #text, 64 do
    for i = 1, 16 do
      local b1, b2, b3, b4 = string.byte(text, block + i * 4 - 4, block + i * 4 - 1)
      w[i] = tobit(b1 * 2 ^ 24 + b2 * 2 ^ 16 + b3 * 2 ^ 8 + b4)
    end
    for i = 17, 64 do
      local x, y = w[i - 15], w[i - 2]
      w[i] = tobit(w[i - 16] + bxor(ror(x, 7), ror(x, 18), rshift(x, 3)) + w[i - 7]
        + bxor(ror(y, 17), ror(y, 19), rshift(y, 10)))
    end
    local a, b, c, d, e, f, g, h = h1, h2, h3, h4, h5, h6, h7, h8
    for i = 1, 64 do
      local first = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(band(e, f), band(bnot(e), g)) + ROUND[i] + w[i]
      local second = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, b), band(a, c), band(b, c))
      h, g, f, e, d, c, b, a = g, f, e, tobit(d + first), c, b, a, tobit(first + second)
    end
    h1, h2, h3, h4 = tobit(h1 + a), tobit(h2 + b), tobit(h3 + c), tobit(h4 + d)
    h5, h6, h7, h8 = tobit(h5 + e), tobit(h6 + f), tobit(h7 + g), tobit(h8 + h)
  end
  local hex = {}
  for i, word in ipairs({h1, h2, h3, h4, h5, h6, h7, h8}) do hex[i] = bit.tohex(word) end
  return table.concat(hex)
end

local entries = {}
for hash, name, ends, cost, missing in string.gmatch(ENTRIES, "(%x+) (%S+) (%d+) (%d+) (%S+)") do
  local entry = {name = name, ends = tonumber(ends), cost = tonumber(cost)}
  for scope in string.gmatch(missing, "%a+") do entry["no_" .. scope] = true end
  entries[hash] = entry
end

-- Accepted keys are cached, so that each is hashed once.
local LONGEST, REMEMBERED = 256, 50000
local known, count = {}, 0

-- A refused key costs this thread a hash. So attempts are limited per second, for each address and for all together.
-- Cached keys need no hash and are not limited by the attempts of others.
local TRIES, TRIES_OF_ALL, ADDRESSES = 20, 500, 10000
local second, tries, tries_of_all, addresses = 0, {}, 0, 0

local function presented(headers)
  local key = headers:get("x-api-key")
  if key == nil then
    key = string.match(headers:get("authorization") or "", "^[Bb]earer +(%S+)$")
  end
  return key
end

local function address_of(handle)
  return string.match(handle:streamInfo():downstreamDirectRemoteAddress(), "^(.*):%d+$") or "unknown"
end

local function may_try(address, now)
  if now ~= second then second, tries, tries_of_all, addresses = now, {}, 0, 0 end
  return tries_of_all < TRIES_OF_ALL and (tries[address] or 0) < TRIES
end

local function failed(address)
  if tries[address] == nil then
    if addresses >= ADDRESSES then return end
    addresses = addresses + 1
  end
  tries[address] = (tries[address] or 0) + 1
  tries_of_all = tries_of_all + 1
end

local function refuse(handle, status, reason, headers)
  headers = headers or {}
  headers[":status"] = status
  headers["content-type"] = "application/json"
  handle:respond(headers, '{"error": "' .. reason .. '"}')
end

local CHALLENGE = 'Bearer realm="churn"'

local function unauthorized(handle, reason)
  refuse(handle, "401", reason, {["www-authenticate"] = CHALLENGE})
end

-- The entry of the key; nil for an unknown key.
local function entry_of(key)
  local hash = sha256(key)
  local entry = entries[hash]
  if entry ~= nil then
    if count == REMEMBERED then known, count = {}, 0 end
    known[key], count = entry, count + 1
  end
  return entry
end

-- A body may request reasons too, by a parameter or by an output's name. A key without the scope `explain` may send only
-- bodies in which that can be seen: not compressed, and no letters as JSON escapes.
local function requests_reasons(handle, headers)
  if headers:get("content-encoding") ~= nil then return true end
  local grpc = string.sub(headers:get("content-type") or "", 1, 16) == "application/grpc"
  local body = handle:body()
  if body == nil then return false end
  local text = body:getBytes(0, body:length())
  if grpc and string.byte(text, 1) == 1 then return true end -- a compressed message
  return string.find(text, "reasons", 1, true) ~= nil or string.find(text, "explanation", 1, true) ~= nil
    or string.find(text, "\\u00[4-7]") ~= nil
end

local function scope_it_lacks(handle, entry, headers)
  if entry.no_variant and headers:get("x-churn-variant") ~= nil then return "variant" end
  if headers:get(":method") ~= "POST" then return nil end
  local path = string.match(headers:get(":path") or "", "^[^?]*")
  if string.find(path, ":explain$") ~= nil or string.find(path, "^/explanations/") ~= nil then
    return entry.no_explain and "explain" or nil
  end
  if entry.no_predict then return "predict" end
  if entry.no_explain and requests_reasons(handle, headers) then return "explain" end
end

local USED_AGAIN_AFTER_S = 300
local used = {} -- name -> time of the last line in the log of key use (serving/gateway/envoy/access_logs.py)

function envoy_on_request(handle)
  local headers, now = handle:headers(), os.time()
  local key = presented(headers)
  local entry = key ~= nil and known[key] or nil
  if entry == nil then
    local address = address_of(handle)
    if not may_try(address, now) then
      refuse(handle, "429", "too many requests with keys that are not known; try again later", {["retry-after"] = "1"})
      return
    end
    if key ~= nil and #key <= LONGEST then entry = entry_of(key) end
    if entry == nil then failed(address) end
  end
  if entry == nil then
    unauthorized(handle, "an API key is needed: send it as x-api-key or Authorization: Bearer")
    return
  end
  if entry.ends ~= 0 and now >= entry.ends then
    unauthorized(handle, "this API key has expired; request another one")
    return
  end
  local name = entry.name
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set("churn.keys", "name", name)
  metadata:set("churn.keys", "cost", entry.cost)
  if now - (used[name] or 0) >= USED_AGAIN_AFTER_S then
    used[name] = now
    metadata:set("churn.keys", "used", true)
  end
  local lacks = scope_it_lacks(handle, entry, headers)
  if lacks ~= nil then
    refuse(handle, "403", "this API key has no scope `" .. lacks .. "`")
    return
  end
  headers = handle:headers() -- the headers from before a wait for the body are not valid any more
  headers:remove("x-api-key")
  headers:remove("authorization")
end
