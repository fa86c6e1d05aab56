-- One event a request. Arguments: a number below 4096, new for each run; how many units; the experiment's id.
function init(args)
   local id, unit = event_ids(tonumber(args[1])), walk(tonumber(args[2]))
   local experiment = tonumber(args[3])
   local function body()
      local n = unit()
      return string.format(
         '{"event_id":"%s","user_id":"u%08d","session_id":"s%08d","experiment_id":%d,"item_id":"%06d","brand_id":"%04d",' ..
            '"position":%d,"placement":"bench","page_type":"feed"}',
         id(), n, n, experiment, n % 1000, n % 100, 1 + n % 9)
   end
   local start = head(#body())
   request = function() return start .. body() end
end
