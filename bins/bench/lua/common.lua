-- Goes in front of every script: numbers the threads, builds the part of a request before its body, and prints what
-- was measured as one line of JSON.

local threads = {}

function setup(thread)
   thread:set("thread_id", #threads)
   threads[#threads + 1] = thread
end

-- Everything before the body. Bodies of one run all have the same length, so this is built once a thread.
function head(length)
   return table.concat({
      "POST " .. wrk.path .. " HTTP/1.1",
      "Host: " .. wrk.headers["Host"],
      "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
      "Accept: application/json",
      "Content-Type: application/json",
      "Content-Length: " .. length,
      "", "",
   }, "\r\n")
end

-- Ids of version 7, as a client library makes them: the time first, so that ids of one time lie together.
-- `run` (12 bits) and the thread keep those of other runs and threads apart. Formatting is dear, and what the load costs the
-- server cannot have: the last three digits come from a table, and what stands before them stays for 4,096 ids.
function event_ids(run)
   local digits = {}
   for i = 0, 4095 do digits[i] = string.format("%03x", i) end
   local count, front = -1, nil
   return function()
      count = count + 1
      local low = count % 4096
      if low == 0 then
         local ms = os.time() * 1000
         front = string.format("%08x-%04x-7%03x-%04x-%09x", math.floor(ms / 65536), ms % 65536, run, 0x8000 + thread_id,
            math.floor(count / 4096))
      end
      return front .. digits[low]
   end
end

-- What follows the id in an event, for each of `size` units.
function tails(size, experiment)
   local made = {}
   for n = 0, size - 1 do
      made[n] = string.format(
         '","user_id":"u%08d","session_id":"s%08d","experiment_id":%d,"item_id":"%06d","brand_id":"%04d",' ..
            '"position":%d,"placement":"bench","page_type":"feed"}',
         n, n, experiment, n % 1000, n % 100, 1 + n % 9)
   end
   return made
end

-- Numbers from 0 to `size` - 1 in an order that jumps about, each thread at a place of its own.
function walk(size)
   local stride = 7919
   while size % stride == 0 do stride = stride + 2 end
   local at = math.floor(size * thread_id / 7) % size
   return function()
      at = (at + stride) % size
      return at
   end
end

function done(summary, latency, requests)
   local wrong = 0
   for _, thread in ipairs(threads) do wrong = wrong + (tonumber(thread:get("wrong")) or 0) end
   local errors = summary.errors
   io.write(string.format(
      '\nPODIUM {"requests":%d,"micros":%d,"bytes":%d,"p50":%.1f,"p99":%.1f,"max":%.1f,' ..
         '"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"wrong":%d}\n',
      summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99), latency.max,
      errors.status, errors.connect, errors.read, errors.write, errors.timeout, wrong))
end
