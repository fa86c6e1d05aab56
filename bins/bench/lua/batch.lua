-- A hundred events a request. Arguments as for one.
function init(args)
   local id, unit = event_ids(tonumber(args[1])), walk(tonumber(args[2]))
   local experiment = tonumber(args[3])
   local function event()
      local n = unit()
      return string.format(
         '{"event_type":"impression","event_id":"%s","user_id":"u%08d","session_id":"s%08d","experiment_id":%d,' ..
            '"item_id":"%06d","brand_id":"%04d","position":%d,"placement":"bench","page_type":"feed"}',
         id(), n, n, experiment, n % 1000, n % 100, 1 + n % 9)
   end
   local function body()
      local events = {}
      for i = 1, 100 do events[i] = event() end
      return '{"events":[' .. table.concat(events, ",") .. "]}"
   end
   local start = head(#body())
   request = function() return start .. body() end
end
