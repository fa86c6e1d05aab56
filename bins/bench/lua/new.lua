-- Units that nobody has seen. Arguments: a tag of three characters, new for each run; whether a session stands beside
-- the user. A degraded answer is wrong here: the unit was not stored in time.
wrong = 0

function init(args)
   local format = '{"user_id":"n%s%02d%09d","placement":"bench"}'
   if args[2] == "session" then format = '{"user_id":"n%s%02d%09d","session_id":"v%s%02d%09d","placement":"bench"}' end
   local tag, count = args[1], 0
   local start = head(#string.format(format, tag, 0, 0, tag, 0, 0))
   request = function()
      count = count + 1
      return start .. string.format(format, tag, thread_id, count, tag, thread_id, count)
   end
end

function response(status, headers, body)
   if string.find(body, '"DEFAULT"', 1, true) then wrong = wrong + 1 end
end
