-- Acknowledge, extend or bury messages, each only by the holder of its fencing token.
-- KEYS: stream, dead letters, charges (one hash tag).
-- ARGV: "done", "extend" or "bury"; group, consumer, dead letters kept, their ttl in ms, reason;
--       then id, token, sender, size in bytes ...
-- Answers the ids that somebody else holds now. An entry that is gone was acknowledged before.

local stream, dead, charges = KEYS[1], KEYS[2], KEYS[3]
local action, group, consumer = ARGV[1], ARGV[2], ARGV[3]

-- One look at this consumer's messages between the first and the last finds most tokens.
local tokens = {}
local count = (#ARGV - 6) / 4
if count > 1 then
  local first, last = nil, nil
  for i = 7, #ARGV, 4 do
    local ms = string.sub(ARGV[i], 1, string.find(ARGV[i], '-', 1, true) - 1)
    if not first or ms < first then first = ms end
    if not last or ms > last then last = ms end
  end
  for _, held in ipairs(redis.call('XPENDING', stream, group, first, last, 2 * count, consumer)) do
    tokens[held[1]] = held[4]
  end
end

local mine, lost, freed, seen = {}, {}, {}, {}

local function look(id, token, sender, size)
  local held = nil
  if tokens[id] ~= token then held = redis.call('XPENDING', stream, group, id, id, 1)[1] end
  if tokens[id] == token or (held and held[2] == consumer and held[4] == token) then
    mine[#mine + 1] = id
    if sender == '' then return end
    local account = freed[sender] or { 0, 0 }
    freed[sender] = { account[1] + 1, account[2] + size }
  elseif held or action == 'extend' then
    lost[#lost + 1] = id
  end
end

for i = 7, #ARGV, 4 do
  if not seen[ARGV[i]] then
    seen[ARGV[i]] = true
    look(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], tonumber(ARGV[i + 3]))
  end
end
if #mine == 0 then return lost end
if action == 'extend' then
  mine[#mine + 1] = 'JUSTID'
  redis.call('XCLAIM', stream, group, consumer, 0, unpack(mine))
  return lost
end

local function bury(id)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then
    redis.call('XADD', dead, 'MAXLEN', '~', tonumber(ARGV[4]), '*',
      'm', entry[2][2], 'r', ARGV[6], 's', entry[2][4] or '')
    redis.call('PEXPIRE', dead, ARGV[5])
  end
end

if action == 'bury' then
  for _, id in ipairs(mine) do bury(id) end
end
redis.call('XACK', stream, group, unpack(mine))
redis.call('XDEL', stream, unpack(mine))
for sender, account in pairs(freed) do
  if redis.call('HINCRBY', charges, 'n:' .. sender, -account[1]) > 0 then
    redis.call('HINCRBY', charges, 'b:' .. sender, -account[2])
  else
    redis.call('HDEL', charges, 'n:' .. sender, 'b:' .. sender)
  end
end
return lost
