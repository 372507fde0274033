-- Checks of several requests against sliding windows and limits of what runs at a time, one after the other, in one
-- atomic call; before them, the leases of places that ended or go on.
--
-- KEYS     the key of every lease of ARGV[2], then of every check, in order
-- ARGV[1]  packed little-endian, for each request: the number of its checks (1 byte, +128 to count nothing), the time
--          in microseconds (8 bytes, 0 for the server's); for each check: algorithm (1 byte, 1 log, 2 counter, 3 places),
--          limit and window in microseconds (8 bytes each), and for places the name of the lease (16 bytes)
-- ARGV[2]  packed little-endian, for each lease: for how many microseconds it is renewed (8 bytes, 0 where it ended), and
--          its name (16 bytes); or missing
--
-- Answers with 8-byte integers, packed: the server's time, then three for each check, as they were before the request:
--   log      how many are in the window; the stamp of the oldest, or the time if there is none; the stamp that must
--            leave for one more to pass, or 0 if there is room
--   counter  the time, the current count, the previous count
--   places   how many are taken, 0, 0
--
-- Places are a sorted set of the names of leases, by the microsecond in which each ends. A log is a list of stamps,
-- oldest first. A counter is its last time, current and previous count, packed. Numbers are doubles, exact to 2^53:
-- limits below 2^31 and windows up to 2^43 microseconds stay exact throughout.

local HALF = 2097152 -- 2^21
local LOG, PLACES, NAME = 1, 3, 16 -- NAME: bytes of a lease's name
local answer = {}

-- a * b <= c * d, for a and c below 2^31, b and d up to 2^43: each part of the products is exact, and each difference.
local function at_most(a, b, c, d)
  local b_low, d_low = b % HALF, d % HALF
  return a * (b - b_low) - c * (d - d_low) <= c * d_low - a * b_low
end

-- How many stamps of the log, of so many, are no later than the given time.
local function gone_by(key, length, time)
  local low, high = 0, length
  while low < high do
    local middle = math.floor((low + high) / 2)
    if tonumber(redis.call('LINDEX', key, middle)) <= time then low = middle + 1 else high = middle end
  end
  return low
end

local function look_at_log(key, limit, window, now)
  local check = {key = key, log = true, clock = now, gone = 0, ttl = window}
  local length = redis.call('LLEN', key)
  local used, oldest, blocking = length, now, 0
  if length > 0 then
    local last = tonumber(redis.call('LINDEX', key, -1))
    if last > now then check.clock = last end
    oldest = tonumber(redis.call('LINDEX', key, 0))
    if oldest <= check.clock - window then
      check.gone = gone_by(key, length, check.clock - window)
      used = length - check.gone
      oldest = used > 0 and tonumber(redis.call('LINDEX', key, check.gone)) or check.clock
    end
    if used >= limit then blocking = tonumber(redis.call('LINDEX', key, -limit)) end
  end
  check.fits = used < limit
  answer[#answer + 1] = struct.pack('<i8i8i8', used, oldest, blocking)
  return check
end

local function look_at_counter(key, limit, window, now)
  local clock, current, previous = now, 0, 0
  local state = redis.call('GET', key)
  if state then
    local last
    last, current, previous = struct.unpack('<i8i8i8', state)
    if last > clock then clock = last end
    local turns = math.floor(clock / window) - math.floor(last / window)
    if turns == 1 then previous, current = current, 0 elseif turns > 1 then previous, current = 0, 0 end
  end
  local left = window - clock % window
  answer[#answer + 1] = struct.pack('<i8i8i8', clock, current, previous)
  return {
    key = key, clock = clock, current = current, previous = previous, ttl = left + window,
    fits = current < limit and at_most(previous, left, limit - 1 - current, window),
  }
end

local function look_at_places(key, limit, window, now, name)
  local used = redis.call('ZCOUNT', key, string.format('(%.0f', now), '+inf')
  answer[#answer + 1] = struct.pack('<i8i8i8', used, 0, 0)
  return {key = key, name = name, ttl = window, fits = used < limit}
end

local function lease(key, name, now, time)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
  redis.call('ZADD', key, string.format('%.0f', now + time), name)
  redis.call('PEXPIRE', key, math.ceil(time / 1000))
end

local function count(check, now)
  if check.name then
    lease(check.key, check.name, now, check.ttl)
    return
  end
  local ttl = math.ceil((check.clock - now + check.ttl) / 1000)
  if check.log then
    if check.gone > 0 then redis.call('LTRIM', check.key, check.gone, -1) end
    redis.call('RPUSH', check.key, string.format('%.0f', check.clock))
    redis.call('PEXPIRE', check.key, ttl)
  else
    redis.call('SET', check.key, struct.pack('<i8i8i8', check.clock, check.current + 1, check.previous), 'PX', ttl)
  end
end

local time = redis.call('TIME')
time = time[1] * 1000000 + time[2]
answer[1] = struct.pack('<i8', time)

local requests, at, key, leases = ARGV[1], 1, 0, ARGV[2] or ''
while at <= #leases do
  local left, name
  left, name, at = struct.unpack('<i8c16', leases, at)
  key = key + 1
  if left > 0 then lease(KEYS[key], name, time, left) else redis.call('ZREM', KEYS[key], name) end
end

at = 1
while at <= #requests do
  local checks, now
  checks, now, at = struct.unpack('<Bi8', requests, at)
  if now == 0 then now = time end
  local counting = checks < 128
  local found = {}
  for i = 1, checks % 128 do
    local algorithm, limit, window
    algorithm, limit, window, at = struct.unpack('<Bi8i8', requests, at)
    key = key + 1
    if algorithm == PLACES then
      found[i] = look_at_places(KEYS[key], limit, window, now, string.sub(requests, at, at + NAME - 1))
      at = at + NAME
    else
      found[i] = (algorithm == LOG and look_at_log or look_at_counter)(KEYS[key], limit, window, now)
    end
    counting = counting and found[i].fits
  end
  if counting then
    for i = 1, #found do count(found[i], now) end
  end
end
return table.concat(answer)
