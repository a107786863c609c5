-- Adds Retry-After to every 503 of Envoy and of TorchServe. TorchServe's 500 and 507 mean that the worker died during the
-- request or before it (when a handler raises an error, TorchServe answers 503). The request is not the cause and another
-- worker starts, so that they become a 503.
local WORKER_DIED = {["500"] = true, ["507"] = true}

function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get(":status")
  if WORKER_DIED[status] then
    headers:replace(":status", "503")
    status = "503"
  end
  if status == "503" and headers:get("retry-after") == nil then
    headers:add("retry-after", "1")
  end
end
