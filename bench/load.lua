-- Drives one workload. Arguments: workload, file (may be empty).
-- The file holds ids to read, one a line; of "email" and "external_id" queries; of the workload "post" it holds one body, in
-- which {n} stands for a number, and of "search" encoded texts, one a line.
local workload, file, share = "read", nil, 20 -- share: creates of "mix", in percent
local ids, parts, count = {}, {}, 0
local thread_number = 0

function setup(thread)
  thread:set("number", thread_number)
  thread_number = thread_number + 1
end

function init(arguments)
  workload, file = arguments[1], arguments[2]
  if workload == "post" then
    for part in (io.open(file):read("*a") .. "{n}"):gmatch("(.-){n}") do parts[#parts + 1] = part end
  elseif file and file ~= "" then
    for line in io.lines(file) do ids[#ids + 1] = line end
  end
  math.randomseed(os.time() * 100 + number)
  salt = math.random(1, 2 ^ 30)
  wrk.headers["Content-Type"] = workload == "form" and "application/x-www-form-urlencoded" or "application/json"
end

local function create()
  count = count + 1
  return wrk.format("POST", wrk.path, nil, string.format(
    '{"first_name":"John","last_name":"Doe","address":"1st Street","country":"US","city":"Denver","zip":"92006",' ..
    '"state":"CO","phone":"+1-555-555-5555","email":"c%d.%d@example.com","ip":"127.0.0.1"}', salt, count))
end

local function form()
  count = count + 1
  return wrk.format("POST", wrk.path, nil,
    string.format("name=John+Doe&email=c%d.%d%%40example.com&phone=%%2B1-555-555-5555&address[line1]=1st+Street" ..
      "&address[city]=Denver&address[country]=US&address[postal_code]=92006&address[state]=CO", salt, count))
end

local function post()
  count = count + 1
  return wrk.format("POST", wrk.path, nil, table.concat(parts, string.format("%d.%d", salt, count)))
end

local function invalid()
  return wrk.format("POST", wrk.path, nil,
    '{"city":"Denver","zip":"92006","state":"CO","phone":"+1-555-555-5555","email":"customer@example.com"}')
end

local function read(skewed)
  local draw = math.random()
  if skewed then draw = draw * draw * draw end
  return wrk.format("GET", wrk.path .. "/" .. ids[math.floor(draw * #ids) + 1])
end

local function search()
  return wrk.format("GET", wrk.path .. "?limit=20&q=" .. ids[math.random(#ids)])
end

local function look_up()
  return wrk.format("GET", wrk.path .. "?" .. ids[math.random(#ids)])
end

function request()
  if workload == "create" then return create() end
  if workload == "form" then return form() end
  if workload == "post" then return post() end
  if workload == "invalid" then return invalid() end
  if workload == "search" then return search() end
  if workload == "read" then return read(false) end
  if workload == "skewed" then return read(true) end
  if workload == "email" or workload == "external_id" then return look_up() end
  if workload == "mix" then
    if math.random(100) <= share then return create() end
    return read(false)
  end
  return wrk.format("GET", wrk.path)
end

function done(summary, latency, requests)
  io.write(string.format('RESULT {"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"max_ms":%f,"bad":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
