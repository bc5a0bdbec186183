-- Append a message to a mailbox unless it is full.
-- KEYS: stream. ARGV: greatest depth, raw message. Answers the entry's id, or "" if it is full.

if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return '' end
return redis.call('XADD', KEYS[1], '*', 'm', ARGV[2])
