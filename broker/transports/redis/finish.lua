-- Acknowledge, extend or bury messages, each only by the holder of its fencing token.
-- KEYS: stream, dead letters, charges (one hash tag).
-- ARGV: "done", "extend" or "bury"; group, consumer, dead letters kept, their ttl in ms, reason;
--       then id, token, sender, size in bytes ...
-- Answers the ids that somebody else holds now. An entry that is gone was acknowledged before.

local stream, dead, charges = KEYS[1], KEYS[2], KEYS[3]
local action, group, consumer = ARGV[1], ARGV[2], ARGV[3]
local messages, bytes = {}, {}

local function bury(id)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then
    redis.call('XADD', dead, 'MAXLEN', '~', tonumber(ARGV[4]), '*',
      'm', entry[2][2], 'r', ARGV[6], 's', entry[2][4] or '')
    redis.call('PEXPIRE', dead, ARGV[5])
  end
end

local function finish(id, sender, size)
  if action == 'extend' then
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
    return
  end
  if action == 'bury' then bury(id) end
  redis.call('XACK', stream, group, id)
  if redis.call('XDEL', stream, id) == 1 and sender ~= '' then
    messages[sender] = (messages[sender] or 0) + 1
    bytes[sender] = (bytes[sender] or 0) + size
  end
end

local lost = {}
for i = 7, #ARGV, 4 do
  local id, token = ARGV[i], tonumber(ARGV[i + 1])
  local held = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if held and held[2] == consumer and held[4] == token then
    finish(id, ARGV[i + 2], tonumber(ARGV[i + 3]))
  elseif held or action == 'extend' then
    lost[#lost + 1] = id
  end
end
for sender, count in pairs(messages) do
  if redis.call('HINCRBY', charges, 'n:' .. sender, -count) > 0 then
    redis.call('HINCRBY', charges, 'b:' .. sender, -bytes[sender])
  else
    redis.call('HDEL', charges, 'n:' .. sender, 'b:' .. sender)
  end
end
return lost
