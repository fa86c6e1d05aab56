-- One event a request. Arguments: a number below 4096, new for each run; how many units; the experiment's id.
function init(args)
   local size = tonumber(args[2])
   local id, unit, tail = event_ids(tonumber(args[1])), walk(size), tails(size, tonumber(args[3]))
   local start = '{"event_id":"'
   start = head(#start + #id() + #tail[0]) .. start
   request = function() return start .. id() .. tail[unit()] end
end
