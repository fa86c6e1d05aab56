-- A GET with a token. Argument: the token.
function init(args)
   local start = table.concat({
      "GET " .. wrk.path .. " HTTP/1.1", "Host: " .. wrk.headers["Host"], "Authorization: Bearer " .. args[1], "", "",
   }, "\r\n")
   request = function() return start end
end
