-- Finds the customer of a request. The customer decides the variant (serving/gateway/envoy/routes.py hashes
-- `x-churn-user`). The body names the customer; the first one of several decides for the whole request. The result does
-- not depend on the spelling in JSON, on compression or on the protocol. A header that the client sends is used as it
-- is. Nothing is stored or logged here, and the gateway removes the header.

local LONGEST = 65536 -- bytes of a body that are searched
local DEEPEST = 32
local FRAME = 5 -- bytes before each gRPC message: a flag and the length
local VERSION, INPUTS, RAW, MAP = 2, 5, 7, 3 -- fields of Open Inference Protocol's and TorchServe's messages
local DATATYPE, CONTENTS, INTEGERS, BYTES = 2, 5, 3, 8
local VARINT, FIXED64, PREFIXED, FIXED32 = 0, 1, 2, 5
local ESCAPES = {b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

local function utf8(code)
  if code < 128 then return string.char(code) end
  if code < 2048 then return string.char(192 + math.floor(code / 64), 128 + code % 64) end
  if code < 65536 then
    return string.char(224 + math.floor(code / 4096), 128 + math.floor(code / 64) % 64, 128 + code % 64)
  end
  return string.char(
    240 + math.floor(code / 262144), 128 + math.floor(code / 4096) % 64, 128 + math.floor(code / 64) % 64, 128 + code % 64
  )
end

-- JSON. Each function begins at the position `at` and returns a position or a value; nil when the text is cut or not JSON.

local function blank(body, at)
  return string.find(body, "[^ \t\r\n]", at) or #body + 1
end

-- The position after the text whose opening quotation mark is at `at`.
local function text_end(body, at)
  local finish = at + 1
  while true do
    local found = string.find(body, '["\\]', finish)
    if found == nil then return nil end
    if string.byte(body, found) == 34 then return found + 1 end
    finish = found + 2 -- an escaped quotation mark is part of the text
  end
end

-- The character that the escape at `at` means, and the position after the escape.
local function unescaped(text, at)
  local sign = string.sub(text, at + 1, at + 1)
  if sign ~= "u" then return ESCAPES[sign] or sign, at + 2 end
  local code = tonumber(string.sub(text, at + 2, at + 5), 16) or 63
  local low = string.match(text, "^\\u([dD][c-fC-F]%x%x)", at + 6)
  if code >= 55296 and code < 56320 and low ~= nil then -- a surrogate pair is one character
    return utf8((code - 55296) * 1024 + tonumber(low, 16) - 56320 + 65536), at + 12
  end
  return utf8(code), at + 6
end

local function text_at(body, at)
  local finish = text_end(body, at)
  if finish == nil then return nil end
  local text = string.sub(body, at + 1, finish - 2)
  local parts, from = {}, 1
  while true do
    local escape = string.find(text, "\\", from, true)
    if escape == nil then break end
    parts[#parts + 1] = string.sub(text, from, escape - 1)
    parts[#parts + 1], from = unescaped(text, escape)
  end
  parts[#parts + 1] = string.sub(text, from)
  return table.concat(parts)
end

-- The position after the value at `at`.
local function value_end(body, at)
  local first = string.byte(body, at)
  if first == 34 then return text_end(body, at) end
  if first ~= 123 and first ~= 91 then return string.find(body, "[,%]}%s]", at) end
  local depth, position = 0, at
  while true do
    local found = string.find(body, '["%[%]{}]', position)
    if found == nil then return nil end
    local sign = string.byte(body, found)
    if sign == 34 then
      position = text_end(body, found)
      if position == nil then return nil end
    else
      depth = depth + ((sign == 123 or sign == 91) and 1 or -1)
      position = found + 1
      if depth == 0 then return position end
    end
  end
end

-- The position of the value of a key of the object at `at`.
local function member(body, at, name)
  if at == nil or string.byte(body, at) ~= 123 then return nil end
  at = blank(body, at + 1)
  while string.byte(body, at) == 34 do
    local key, finish = text_at(body, at), text_end(body, at)
    if key == nil then return nil end
    local colon = blank(body, finish)
    if string.byte(body, colon) ~= 58 then return nil end
    local value = blank(body, colon + 1)
    if key == name then return value end
    local behind = value_end(body, value)
    if behind == nil then return nil end
    local comma = blank(body, behind)
    if string.byte(body, comma) ~= 44 then return nil end
    at = blank(body, comma + 1)
  end
end

-- The position of the first value in the list at `at` or in the first list in it; `at` for a value that is no list.
local function innermost(body, at)
  for _ = 1, DEEPEST do
    if at == nil or string.byte(body, at) ~= 91 then return at end
    at = blank(body, at + 1)
  end
end

local function value_at(body, at)
  if at == nil then return nil end
  if string.byte(body, at) == 34 then return text_at(body, at) end
  return string.match(body, "^-?%d+", at)
end

local function integer(bytes)
  local value, scale = 0LL, 1LL
  for i = 1, 8 do
    value, scale = value + string.byte(bytes, i) * scale, scale * 256LL
  end
  return (string.gsub(tostring(value), "U?LL$", ""))
end

-- The first value of a tensor's raw bytes.
local function from_raw(bytes, datatype)
  if datatype == "INT64" then return #bytes >= 8 and integer(bytes) or nil end
  local a, b = string.byte(bytes, 1, 2)
  if b == nil then return nil end
  local text = string.sub(bytes, 5, 4 + a + b * 256)
  return text ~= "" and text or nil
end

local function from_json(body, json_length)
  local at = blank(body, string.sub(body, 1, 3) == "\239\187\191" and 4 or 1)
  local instances = string.byte(body, at) == 91 and at or member(body, at, "instances")
  if instances ~= nil then return value_at(body, member(body, innermost(body, instances), "user_id")) end
  local inputs = innermost(body, member(body, at, "inputs"))
  if inputs == nil then return value_at(body, member(body, at, "user_id")) end
  local data = member(body, inputs, "data")
  if data ~= nil or json_length == nil then return value_at(body, innermost(body, data)) end
  return from_raw(string.sub(body, json_length + 1), value_at(body, member(body, inputs, "datatype")))
end

-- Protobuf.

local function varint(body, position)
  local value, scale = 0LL, 1LL
  for at = position, position + 9 do
    local byte = string.byte(body, at)
    if byte == nil then return nil end
    value, scale = value + (byte % 128) * scale, scale * 128
    if byte < 128 then return value, at + 1 end
  end
end

-- Calls `visit(number, first, last)` for each length-prefixed field until it returns a value, and returns that.
local function fields(body, position, last, visit)
  while position <= last do
    local tag, value
    tag, position = varint(body, position)
    if tag == nil then return nil end
    local kind = tonumber(tag) % 8
    local number = (tonumber(tag) - kind) / 8
    if kind == VARINT then
      value, position = varint(body, position)
      if value == nil then return nil end
    elseif kind == PREFIXED then
      value, position = varint(body, position)
      if value == nil or value < 0 or value > last then return nil end
      local found = visit(number, position, position + tonumber(value) - 1)
      if found ~= nil then return found end
      position = position + tonumber(value)
    elseif kind == FIXED64 then position = position + 8
    elseif kind == FIXED32 then position = position + 4
    else return nil end
  end
end

-- The first customer of a ModelInferRequest, and its version.
local function from_infer(body)
  local version, datatype
  local user = fields(body, 1, #body, function(number, first, last)
    if number == VERSION then version = string.sub(body, first, last) end
    if number == RAW then return from_raw(string.sub(body, first, last), datatype) end
    if number ~= INPUTS then return nil end
    return fields(body, first, last, function(inner, start, finish)
      if inner == DATATYPE then datatype = string.sub(body, start, finish) end
      if inner ~= CONTENTS then return nil end
      return fields(body, start, finish, function(kind, from, to)
        if kind == INTEGERS then return (string.gsub(tostring((varint(body, from))), "U?LL$", "")) end
        if kind == BYTES then return string.sub(body, from, to) end
      end)
    end)
  end)
  return user, version
end

-- The first customer of the native body that a PredictionsRequest carries.
local function from_predictions(body)
  return fields(body, 1, #body, function(number, first, last)
    if number ~= MAP then return nil end
    return fields(body, first, last, function(inner, start, finish)
      if inner == 2 then return from_json(string.sub(body, start, finish)) end
    end)
  end)
end

function envoy_on_request(handle)
  if handle:headers():get("x-churn-user") ~= nil then return end
  local body = handle:body()
  if body == nil or body:length() == 0 then return end
  local text = body:getBytes(0, math.min(body:length(), LONGEST))
  local headers = handle:headers() -- the headers from before the wait for the body are not valid any more
  local user, version
  if headers:get("content-type") == "application/x-protobuf" then
    local message = string.sub(text, FRAME + 1)
    if string.byte(text, 1) == 1 then message = decompressed(message) end
    if string.find(headers:get(":path"), "Predictions", 1, true) ~= nil then
      user = from_predictions(message)
    else
      user, version = from_infer(message)
    end
    if version ~= nil and version ~= "" and string.find(version, "^[%w._-]+$") ~= nil then
      headers:replace("x-churn-version", version)
    end
  else
    if (headers:get("content-encoding") or "identity") ~= "identity" then text = decompressed(text) end
    user = from_json(text, tonumber(headers:get("inference-header-content-length") or ""))
  end
  if user == nil or user == "" then return end
  headers:replace("x-churn-user", (string.gsub(user, "[^\32-\126]", function(c) return string.format("%%%02X", string.byte(c)) end)))
end
