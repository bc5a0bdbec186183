-- Take over messages whose lease is over, or one's own after a restart; bury what fails too often.
-- KEYS: stream, dead letters, charges (one hash tag).
-- ARGV: group, consumer, lease in ms, greatest number of deliveries, count, dead letters kept,
--       their ttl in ms, "own" (this consumer's messages whatever their lease) or "stale", then ids to leave alone.
-- Answers {{id, token, raw, sender}, ...}.

local stream, dead, charges = KEYS[1], KEYS[2], KEYS[3]
local group, consumer, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most, count, kept = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local in_hand = {}
for i = 9, #ARGV do in_hand[ARGV[i]] = true end

local function pending(start)
  if ARGV[8] == 'own' then
    return redis.call('XPENDING', stream, group, start, '+', count, consumer)
  end
  return redis.call('XPENDING', stream, group, 'IDLE', lease, start, '+', count)
end

-- A claimed entry whose payload is gone comes back empty, or not at all, depending on the server.
local function claim(id)
  local taken = redis.call('XCLAIM', stream, group, consumer, 0, id)[1]
  local fields = taken and taken[2]
  if not fields then redis.call('XACK', stream, group, id) end
  return fields
end

local function bury(id, raw, sender)
  redis.call('XADD', dead, 'MAXLEN', '~', kept, '*',
    'm', raw, 'r', 'undeliverable', 's', sender)
  redis.call('PEXPIRE', dead, ARGV[7])
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
  if sender == '' then return end
  if redis.call('HINCRBY', charges, 'n:' .. sender, -1) > 0 then
    redis.call('HINCRBY', charges, 'b:' .. sender, -#raw)
  else
    redis.call('HDEL', charges, 'n:' .. sender, 'b:' .. sender)
  end
end

local found, start = {}, '-'
repeat
  local entries = pending(start)
  for _, entry in ipairs(entries) do
    local id, deliveries = entry[1], entry[4]
    start = '(' .. id
    if not in_hand[id] and #found < count then
      local fields = claim(id)
      if fields and deliveries >= most then
        bury(id, fields[2], fields[4] or '')
      elseif fields then
        found[#found + 1] = { id, deliveries + 1, fields[2], fields[4] or '' }
      end
    end
  end
until #entries < count or #found >= count
return found
