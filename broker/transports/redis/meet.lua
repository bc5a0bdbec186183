-- Claim a place among the threads that a buyer has open with a seller.
-- KEYS: open threads by the end of their time. ARGV: thread, that end in ms, most threads.
-- Answers 1 (a new place), 0 (claimed before), or -N: full, and one is free in N ms at the latest.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
  return now - tonumber(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
local left = math.max(tonumber(ARGV[2]) - now, 1)
if redis.call('PTTL', KEYS[1]) < left then redis.call('PEXPIRE', KEYS[1], left) end
return 1
