-- Behind the bridge: answers the gRPC methods that the gateway answers itself, and stores the HTTP status of a
-- refusal in `x-churn-status`. The bridge does not pass the status on; grpc_status.lua, before it, reads the header.
--
-- A route's context (serving/gateway/envoy/grpc_routes.py) may contain `names`, the accepted values of the request's
-- first field, `versions`, the same for the second, and the answer as a message in hexadecimal: `yes`, and `no` where
-- the readiness filter decides between them.

local PROTOBUF = "application/x-protobuf"
local FRAME = 5 -- bytes before each gRPC message: a flag and the length
local UNKNOWN, UNAVAILABLE = "2", "14" -- Envoy's translations of HTTP's 200 and 503
local REASON = {
  ["400"] = "the request cannot be read",
  ["404"] = "no such model",
  ["413"] = "the message is larger than the server takes",
  ["500"] = "the worker ended over the request; try again later",
  ["503"] = "no server can answer now; try again later",
  ["507"] = "the worker ended over the request; try again later",
}

-- Field -> text of a message with nothing but texts of less than 128 bytes; nil for other messages.
local function texts(message)
  local found, position = {}, 1
  while position <= #message do
    local tag, length = string.byte(message, position, position + 1)
    if length == nil or tag % 8 ~= 2 or length >= 128 or position + 1 + length > #message then return nil end
    found[(tag - 2) / 8] = string.sub(message, position + 2, position + 1 + length)
    position = position + 2 + length
  end
  return found
end

local function listed(list, text)
  return string.find("\n" .. list .. "\n", "\n" .. text .. "\n", 1, true) ~= nil
end

local PASSED = "churn.grpc_answer" -- dynamic metadata: the request has passed the bridge

function envoy_on_request(handle)
  handle:streamInfo():dynamicMetadata():set(PASSED, "passed", true)
  local context = handle:filterContext()
  local names, versions = context:get("names"), context:get("versions")
  if names == nil then return end
  local body = handle:body()
  local message = body ~= nil and body:length() >= FRAME and body:getBytes(FRAME, body:length() - FRAME) or ""
  local fields = texts(message)
  if fields == nil or not listed(names, fields[1] or "") or (versions ~= nil and not listed(versions, fields[2] or "")) then
    handle:respond({[":status"] = "404"}, '{"error": "not served here"}')
  end
end

local function unhex(text)
  return (string.gsub(text, "%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

local function framed(message)
  local length = #message
  return string.char(0, 0, 0, math.floor(length / 256), length % 256) .. message
end

-- Envoy's own answers have a gRPC status and no message. Where the route has a message, it replaces the status.
local function on_envoys_own(handle, headers)
  local context = handle:filterContext()
  local answer = context:get("yes")
  local status = headers:get("grpc-status")
  if status == UNAVAILABLE then answer = context:get("no") end
  headers:replace("content-type", PROTOBUF)
  if answer == nil or (status ~= UNAVAILABLE and status ~= UNKNOWN) then return end
  headers:remove("grpc-status")
  headers:remove("grpc-message")
  headers:remove("content-length")
  handle:body(true):setBytes(framed(unhex(answer)))
end

function envoy_on_response(handle)
  if handle:streamInfo():dynamicMetadata():get(PASSED) == nil then return end -- it was refused before the bridge
  local headers = handle:headers()
  local status, content_type = headers:get(":status"), headers:get("content-type") or ""
  if string.sub(content_type, 1, 16) == "application/grpc" then
    on_envoys_own(handle, headers)
  elseif content_type == PROTOBUF then
    if status ~= "200" then headers:replace("x-churn-status", status) end
  else -- an answer of TorchServe itself
    headers:replace("content-type", PROTOBUF)
    headers:replace("x-churn-status", status)
    headers:replace("grpc-message", REASON[status] or "refused")
    headers:remove("content-length")
    local body = handle:body()
    if body ~= nil then body:setBytes("") end
  end
end
