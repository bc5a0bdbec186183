-- Forget a consumer that reads no longer, unless messages are leased to it: they stay its own.
-- KEYS: stream. ARGV: group, consumer. Answers 1 if it is forgotten.

if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
