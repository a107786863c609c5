-- Whose request is it? The customer decides the variant (serving/routes.py hashes `x-churn-user`), and the body
-- names the customer: the first one of several, so that a request with many goes one way as a whole. A caller's own
-- header is taken as it is. Nothing here is kept or logged; the header ends at this gateway.

local LONGEST = 65536 -- how far into a body we look
local FRAME = 5 -- a flag and a length stand before each gRPC message
local INPUTS, CONTENTS, INTEGERS, BYTES = 5, 5, 3, 8 -- fields of Open Inference Protocol's messages
local VARINT, FIXED64, PREFIXED, FIXED32 = 0, 1, 2, 5

local function text_from(body, start)
  local finish = start
  while true do
    local at = string.find(body, '["\\]', finish)
    if at == nil then return nil end
    if string.byte(body, at) == 34 then return string.sub(body, start, at - 1) end
    finish = at + 2 -- what is escaped ends no text
  end
end

local function value_at(body, position)
  if string.byte(body, position) == 34 then return text_from(body, position + 1) end
  return string.match(body, "^-?%d+", position)
end

-- Where the value after `name` begins. A plain search first: over a long body a pattern is twenty times slower.
local function after(body, name, pattern)
  local at = string.find(body, name, 1, true)
  while at ~= nil do
    local _, last = string.find(body, pattern, at + #name)
    if last ~= nil then return last + 1 end
    at = string.find(body, name, at + #name, true)
  end
end

local function from_json(body)
  local at = after(body, '"user_id"', "^%s*:%s*") or after(body, '"data"', "^%s*:[%s%[]*")
  return at and value_at(body, at)
end

local function varint(body, position)
  local value, scale = 0LL, 1LL
  for at = position, position + 9 do
    local byte = string.byte(body, at)
    if byte == nil then return nil end
    value, scale = value + (byte % 128) * scale, scale * 128
    if byte < 128 then return value, at + 1 end
  end
end

-- Calls `visit(number, first, last)` for each length-prefixed field until it answers.
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

local function from_tensor(body)
  return fields(body, 1, #body, function(number, first, last)
    if number ~= INPUTS then return nil end
    return fields(body, first, last, function(inner, start, finish)
      if inner ~= CONTENTS then return nil end
      return fields(body, start, finish, function(kind, from, to)
        if kind == INTEGERS then return (string.gsub(tostring((varint(body, from))), "U?LL$", "")) end
        if kind == BYTES then return string.sub(body, from, to) end
      end)
    end)
  end)
end

function envoy_on_request(handle)
  if handle:headers():get("x-churn-user") ~= nil then return end
  local body = handle:body()
  if body == nil or body:length() == 0 then return end
  local text = body:getBytes(0, math.min(body:length(), LONGEST))
  local headers = handle:headers() -- only now: those of before the wait for the body are out of scope
  local user = from_json(text)
  if user == nil and string.sub(headers:get("content-type") or "", 1, 16) == "application/grpc" then
    user = from_tensor(string.sub(text, FRAME + 1))
  end
  if user == nil or user == "" then return end
  headers:replace("x-churn-user", (string.gsub(user, "[^\32-\126]", function(c) return string.format("%%%02X", string.byte(c)) end)))
end
