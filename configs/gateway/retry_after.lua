-- Every 503, ours or TorchServe's, says when to come back. TorchServe's 500 and 507 mean that the worker died over
-- the request, or before it began (a handler that raises is its 503): nothing is wrong with the request, and
-- another worker starts.
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
