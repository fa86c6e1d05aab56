-- Units that have an assignment, and no more than what the question needs. Arguments: how many, the letter of their
-- names.
function init(args)
   local format = '{"user_id":"%s%08d","placement":"bench"}'
   local letter, unit = args[2], walk(tonumber(args[1]))
   local start = head(#string.format(format, letter, 0))
   request = function() return start .. string.format(format, letter, unit()) end
end
