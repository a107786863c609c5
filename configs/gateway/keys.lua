-- Who asks? An API key in `x-api-key` or `Authorization: Bearer` must have its SHA-256 among the route's keys.
-- serving/routes.py puts them there, hash -> name, so that no key is ever written down; a key is 256 random
-- bits, which is why one unsalted hash is enough.

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

-- A hash never changes: those of keys that were good are remembered, and looked up anew at each request.
local LONGEST, REMEMBERED = 256, 1000
local known, count = {}, 0

local function presented(headers)
  local key = headers:get("x-api-key")
  if key == nil then
    key = string.match(headers:get("authorization") or "", "^[Bb]earer +(%S+)$")
  end
  return key
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local key = presented(headers)
  local name
  if key ~= nil and #key <= LONGEST then
    local hash = known[key] or sha256(key)
    name = handle:filterContext():get(hash)
    if name ~= nil and known[key] == nil then
      if count == REMEMBERED then known, count = {}, 0 end
      known[key], count = hash, count + 1
    end
  end
  if name == nil then
    handle:respond(
      {[":status"] = "401", ["www-authenticate"] = 'Bearer realm="churn"', ["content-type"] = "application/json"},
      '{"error": "an API key is needed: send it as x-api-key or Authorization: Bearer"}'
    )
    return
  end
  headers:remove("x-api-key")
  headers:remove("authorization")
  handle:streamInfo():dynamicMetadata():set("churn.keys", "name", name)
end
