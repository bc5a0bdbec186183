-- Put dead letters back into their mailbox, the oldest first, as far as there is room.
-- KEYS: stream, dead letters, charges (one hash tag).
-- ARGV: how many at most, greatest depth, ttl in ms. Answers how many came back.

local stream, dead, charges = KEYS[1], KEYS[2], KEYS[3]
local count = math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - redis.call('XLEN', stream))
if count < 1 then return 0 end

local letters = redis.call('XRANGE', dead, '-', '+', 'COUNT', count)
for _, letter in ipairs(letters) do
  local raw, sender = letter[2][2], letter[2][6] or ''
  redis.call('XADD', stream, '*', 'm', raw, 's', sender)
  if sender ~= '' then
    redis.call('HINCRBY', charges, 'n:' .. sender, 1)
    redis.call('HINCRBY', charges, 'b:' .. sender, #raw)
  end
  redis.call('XDEL', dead, letter[1])
end
if #letters > 0 then
  redis.call('PEXPIRE', stream, ARGV[3])
  redis.call('PEXPIRE', charges, ARGV[3])
end
return #letters
