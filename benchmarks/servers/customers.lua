-- wrk's script: walks over real customers, and ends with one line of JSON.
--   wrk -s customers.lua URL -- IDS_FILE BODY_WITH_%s
-- With STATUSES in the environment every answer is looked at: its status, and Retry-After beside a 503. That
-- costs wrk time, so it is left out where speed is measured.

local requests, position = {}, 0
local threads = {}
counts = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  local headers = { ["Content-Type"] = "application/json" }
  for name in string.gmatch(os.getenv("HEADERS") or "", "[^\n]+") do
    local key, value = string.match(name, "^([^:]+):%s*(.*)$")
    headers[key] = value
  end
  for id in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, string.format(args[2], id))
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

if os.getenv("STATUSES") then
  function response(status, headers, body)
    local kind = tostring(status)
    if status == 503 then
      local found = false
      for name in pairs(headers) do
        if string.lower(name) == "retry-after" then found = true end
      end
      kind = found and "503 with Retry-After" or "503 without Retry-After"
    end
    counts[kind] = (counts[kind] or 0) + 1
  end
end

function done(summary, latency, _)
  local statuses = {}
  for _, thread in ipairs(threads) do
    for kind, count in pairs(thread:get("counts")) do
      statuses[#statuses + 1] = string.format('"%s": %d', kind, count)
    end
  end
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, "refused": %d,'
      .. ' "broken": %d, "timeouts": %d, "statuses": {%s}}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000,
    summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write, summary.errors.timeout,
    table.concat(statuses, ", ")))
end
