-- Translates the HTTP status of a refusal into a gRPC status. Behind the bridge (serving/gateway/envoy/grpc_routes.py)
-- a gRPC call is an HTTP request, so that the router retries and counts a 503 as for other clients.
-- TorchServe's 500 and 507 mean that the worker died: UNAVAILABLE, after which clients may try again.

local STATUS = {
  ["400"] = "3", ["404"] = "5", ["408"] = "4", ["413"] = "8", ["415"] = "12", ["422"] = "3", ["429"] = "8",
  ["500"] = "14", ["502"] = "14", ["503"] = "14", ["504"] = "4", ["507"] = "14",
}
local UNKNOWN = "2"
-- Envoy's own refusals (serving/gateway/envoy/local_replies.py) whose text is more exact than their status
local OWN = {["larger than"] = "8", ["no answer in time"] = "4", ["not served here"] = "5"}

local function on_envoys_own(headers)
  local text = string.match(headers:get("grpc-message") or "", '"error": *"([^"]*)"')
  if text == nil then return end
  headers:replace("grpc-message", text)
  for part, status in pairs(OWN) do
    if string.find(text, part, 1, true) ~= nil then headers:replace("grpc-status", status) end
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if string.sub(headers:get("content-type") or "", 1, 16) ~= "application/grpc" then return end
  if headers:get("grpc-status") ~= nil then return on_envoys_own(headers) end
  local status, reason = headers:get("x-churn-status"), headers:get("grpc-message")
  if status == nil then return end
  headers:remove("x-churn-status")
  headers:remove("grpc-message")
  headers:remove("content-length")
  local trailers = handle:trailers()
  if trailers == nil then -- an answer with nothing but headers: they contain the status
    trailers = handle:headers()
  end
  trailers:replace("grpc-status", STATUS[status] or UNKNOWN)
  if reason ~= nil then trailers:replace("grpc-message", reason) end
end
