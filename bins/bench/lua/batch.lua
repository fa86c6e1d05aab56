-- A hundred events a request. Arguments as for one.
function init(args)
   local size = tonumber(args[2])
   local id, unit, tail = event_ids(tonumber(args[1])), walk(size), tails(size, tonumber(args[3]))
   local start, pieces = '{"event_type":"impression","event_id":"', {}
   local function body()
      for i = 1, 100 do pieces[i] = start .. id() .. tail[unit()] end
      return '{"events":[' .. table.concat(pieces, ",") .. "]}"
   end
   local front = head(#body())
   request = function() return front .. body() end
end
