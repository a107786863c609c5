-- Marks a request with a keyed checksum of its customer. So failures are counted by customer (rollout/observers/
-- failures.py) without an identifier in any file: the key is random, is only in Envoy's memory, and ends with Envoy.

local KEY = "@KEY@"
local band, bxor, rol, tobit = bit.band, bit.bxor, bit.rol, bit.tobit

-- Product of two 32-bit numbers modulo 2^32, in halves, because a double has only 53 bits.
local function product(a, b)
  local low, high = band(a, 0xffff), band(bit.rshift(a, 16), 0xffff)
  return tobit(low * b + tobit(band(high * b, 0xffff)) * 65536)
end

local function checksum(text, seed)
  local h = seed
  for at = 1, #text do
    h = product(bxor(h, string.byte(text, at)), 0x01000193) -- FNV-1a
    h = bxor(rol(h, 13), at)
  end
  h = product(bxor(h, bit.rshift(h, 16)), 0x45d9f3b)
  return bit.tohex(bxor(h, bit.rshift(h, 15)))
end

function envoy_on_request(handle)
  local user = handle:headers():get("x-churn-user")
  local who = user and checksum(KEY .. user, 0x811c9dc5 - 0x100000000) .. checksum(user .. KEY, 0x2545f491) or ""
  handle:streamInfo():dynamicMetadata():set("churn.customer", "who", who)
end
