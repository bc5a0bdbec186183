-- Append messages to a mailbox, reserve places in it, or give places back: as many as come at once.
-- KEYS: stream, charges (a hash: "n:SENDER" messages, "b:SENDER" bytes unacknowledged or reserved).
-- ARGV: ttl in ms, greatest depth, messages a sender, bytes a sender; then for each message
--       "asked" (reserve and append), "reserved" (append), "owed" (append, whatever the room),
--       "reserve" or "cancel"; sender ("" has no quota), size in bytes, raw message.
-- Answers OK, FULL or QUOTA for each. Where nothing waits nothing is owed: a place that a process
-- reserved which died is forgotten when the next message comes to an empty mailbox.

local stream, charges = KEYS[1], KEYS[2]
local ttl, most, most_messages, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local waiting, appended = redis.call('XLEN', stream), false
local depth, accounts = waiting, {}

local function account(sender)
  local found = accounts[sender]
  if not found then
    local held = redis.call('HMGET', charges, 'n:' .. sender, 'b:' .. sender)
    found = { messages = tonumber(held[1]) or 0, bytes = tonumber(held[2]) or 0 }
    accounts[sender] = found
  end
  return found
end

local function charge(sender, count, size)
  if sender == '' then return end
  local held = account(sender)
  held.messages, held.bytes = held.messages + count, held.bytes + count * size
end

local function refusal(sender, size)
  if depth >= most then return 'FULL' end
  if sender == '' then return nil end
  if waiting == 0 and depth == 0 then
    redis.call('DEL', charges)
    waiting, accounts = nil, {}
  end
  local held = account(sender)
  if held.messages >= most_messages or held.bytes + size > most_bytes then return 'QUOTA' end
end

local function take(how, sender, size, raw)
  if how == 'asked' or how == 'reserve' then
    local refused = refusal(sender, size)
    if refused then return refused end
  end
  if how ~= 'reserved' then charge(sender, how == 'cancel' and -1 or 1, size) end
  if how ~= 'reserve' and how ~= 'cancel' then
    redis.call('XADD', stream, '*', 'm', raw, 's', sender)
    depth, appended = depth + 1, true
  end
  return 'OK'
end

local answers = {}
for i = 5, #ARGV, 4 do
  answers[#answers + 1] = take(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3])
end
if appended then redis.call('PEXPIRE', stream, ttl) end
for sender, held in pairs(accounts) do
  if held.messages > 0 then
    local new = redis.call('HSET', charges,
      'n:' .. sender, held.messages, 'b:' .. sender, held.bytes)
    if new > 0 then redis.call('PEXPIRE', charges, ttl) end
  else
    redis.call('HDEL', charges, 'n:' .. sender, 'b:' .. sender)
  end
end
return answers
