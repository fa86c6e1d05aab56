-- Units that have an assignment. Arguments: how many, the letter that their names begin with.
function init(args)
   local length = #body(args[2], 0)
   local start, letter, unit = head(length), args[2], walk(tonumber(args[1]))
   request = function() return start .. body(letter, unit()) end
end

function body(letter, unit)
   return string.format(
      '{"user_id":"%s%08d","session_id":"s%08d","context":{"page_type":"pdp","placement":"bench","locale":"en-US"}}',
      letter, unit, unit)
end
