-- Claim a place in a group of threads.
-- KEYS: buyer, list of threads (one hash tag). ARGV: buyer, thread, most threads, ttl in ms.

local buyer = redis.call('GET', KEYS[1])
if buyer and buyer ~= ARGV[1] then return 'NOT_PARTY' end
if not redis.call('LPOS', KEYS[2], ARGV[2]) then
  if redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[3]) then return 'ROUND_LIMIT' end
  redis.call('RPUSH', KEYS[2], ARGV[2])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 'OK'
