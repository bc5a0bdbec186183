-- Append a message to a mailbox, reserve a place for one, or give the place back.
-- KEYS: stream, charges (a hash: "n:SENDER" messages, "b:SENDER" bytes unacknowledged or reserved).
-- ARGV: "asked" (reserve and append), "reserved" (append), "owed" (append, whatever the room),
--       "reserve" or "cancel"; sender, size in bytes, ttl in ms, raw message,
--       greatest depth, messages a sender, bytes a sender.
-- Answers OK, FULL or QUOTA. An empty mailbox owes nobody anything: a place that was reserved by a
-- process which died is forgotten then.

local stream, charges = KEYS[1], KEYS[2]
local how, sender, size = ARGV[1], ARGV[2], tonumber(ARGV[3])
local messages, bytes = 'n:' .. sender, 'b:' .. sender

local function charge(count)
  if sender == '' then return end
  if redis.call('HINCRBY', charges, messages, count) > 0 then
    redis.call('HINCRBY', charges, bytes, count * size)
  else
    redis.call('HDEL', charges, messages, bytes)
  end
  redis.call('PEXPIRE', charges, ARGV[4])
end

local function refusal()
  local depth = redis.call('XLEN', stream)
  if depth >= tonumber(ARGV[6]) then return 'FULL' end
  if sender == '' then return nil end
  if depth == 0 then redis.call('DEL', charges) end
  local held = redis.call('HMGET', charges, messages, bytes)
  if (tonumber(held[1]) or 0) >= tonumber(ARGV[7])
    or (tonumber(held[2]) or 0) + size > tonumber(ARGV[8]) then
    return 'QUOTA'
  end
end

if how == 'asked' or how == 'reserve' then
  local refused = refusal()
  if refused then return refused end
end
if how == 'cancel' then
  charge(-1)
elseif how ~= 'reserved' then
  charge(1)
end
if how ~= 'reserve' and how ~= 'cancel' then
  redis.call('XADD', stream, '*', 'm', ARGV[5], 's', sender)
  redis.call('PEXPIRE', stream, ARGV[4])
end
return 'OK'
