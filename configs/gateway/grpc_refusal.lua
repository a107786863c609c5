-- TorchServe's Open Inference gRPC cannot refuse: our handler answers with an id "refused STATUS REASON" instead
-- (handlers/open_inference_grpc.py), and here that becomes the error that a gRPC client expects. INTERNAL is what TorchServe
-- says when a worker died or its queue is full: UNAVAILABLE, after which clients may try again.

local STATUS = {["400"] = "3", ["404"] = "5", ["413"] = "8", ["503"] = "14"}
local INTERNAL, UNAVAILABLE, UNKNOWN = "13", "14", "2"
local FRAME = 5 -- a flag and a length stand before each gRPC message
local NAME, VERSION, ID = 0x0a, 0x12, 0x1a -- ModelInferResponse's first fields, all of them texts
local LONGEST = 16384 -- an id in two bytes of length

local function encoded(text)
  return (string.gsub(text, "[^\32-\36\38-\126]", function(c) return string.format("%%%02X", string.byte(c)) end))
end

local function id_of(message)
  local position = 1
  while true do
    local tag, length, high = string.byte(message, position, position + 2)
    if length == nil then return nil end
    position = position + 2
    if length >= 128 then length, position = length - 128 + (high or 0) * 128, position + 1 end
    if tag == ID then return string.sub(message, position, position + length - 1) end
    if tag ~= NAME and tag ~= VERSION then return nil end
    position = position + length
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local at_once = headers:get("grpc-status") -- an error without a message comes in the headers
  if at_once ~= nil then
    if at_once == INTERNAL then headers:replace("grpc-status", UNAVAILABLE) end
    return
  end
  local body = handle:body()
  if body == nil or body:length() <= FRAME then return end
  local id = id_of(body:getBytes(FRAME, math.min(body:length() - FRAME, LONGEST)))
  local status, reason = string.match(id or "", "^refused (%d+) (.*)$")
  if status ~= nil then
    body:setBytes("")
    local trailers = handle:trailers()
    trailers:replace("grpc-status", STATUS[status] or UNKNOWN)
    trailers:replace("grpc-message", encoded(reason))
  end
end
