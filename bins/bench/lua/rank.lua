-- Orders of fifty items for units that have an assignment. Arguments: how many, the letter of their names, the items as
-- JSON without the closing brace.
function init(args)
   local format = '{"user_id":"%s%08d",%s}'
   local letter, unit, rest = args[2], walk(tonumber(args[1])), args[3]
   local start = head(#string.format(format, letter, 0, rest))
   request = function() return start .. string.format(format, letter, unit(), rest) end
end
