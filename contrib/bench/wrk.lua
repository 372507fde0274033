-- One line of JSON for bench/wrk.py. A `request` or `response` function would slow wrk down: there is one only where
-- requests differ, in a file with a value of Authorization a line. A second file is the body of each request.
init = function(args)
   if args[2] then
      wrk.method, wrk.body = "PUT", io.open(args[2], "rb"):read("*a")
   end
   if not args[1] or args[1] == "" then return end
   local requests, sent = {}, 0
   for line in io.lines(args[1]) do
      wrk.headers["Authorization"] = line
      requests[#requests + 1] = wrk.format()
   end
   request = function()
      sent = sent + 1
      return requests[sent % #requests + 1]
   end
end
done = function(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      'RESULT {"requests": %d, "bytes": %d, "seconds": %.6f, "p50": %.3f, "p95": %.3f, "p99": %.3f, ' ..
      '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
      summary.requests, summary.bytes, summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
      e.connect, e.read, e.write, e.status, e.timeout))
end
