-- Append a message to a mailbox unless it is full.
-- KEYS: stream. ARGV: greatest depth, raw message, ttl in ms.
-- Answers the entry's id, or "" if it is full.

if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return '' end
local id = redis.call('XADD', KEYS[1], '*', 'm', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return id
