-- Put dead letters back into their mailbox, the oldest first, as far as there is room.
-- KEYS: stream, dead letters (one hash tag). ARGV: how many at most, greatest depth, ttl in ms.
-- Answers how many came back.

local stream, dead = KEYS[1], KEYS[2]
local count = math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - redis.call('XLEN', stream))
if count < 1 then return 0 end

local letters = redis.call('XRANGE', dead, '-', '+', 'COUNT', count)
for _, letter in ipairs(letters) do
  redis.call('XADD', stream, '*', 'm', letter[2][2])
  redis.call('XDEL', dead, letter[1])
end
if #letters > 0 then redis.call('PEXPIRE', stream, ARGV[3]) end
return #letters
