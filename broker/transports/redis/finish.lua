-- Acknowledge, extend or bury messages, each only by the holder of its fencing token.
-- KEYS[1]: the market's hash tag, with which its keys begin.
-- ARGV: "done", "extend" or "bury"; group, consumer, dead letters kept, their ttl in ms, reason;
--       then for each mailbox: owner, number of messages, and for each id, token, sender, size.
-- Answers for each mailbox the ids that somebody else holds now. An entry that is gone was
-- acknowledged before.

local action, group, consumer = ARGV[1], ARGV[2], ARGV[3]

-- One look at this consumer's messages between the first and the last finds most tokens.
local function tokens_of(stream, from, count)
  local tokens, first, last = {}, ARGV[from], ARGV[from]
  for i = from + 4, from + 4 * (count - 1), 4 do
    local id = ARGV[i]
    if id < first then first = id elseif id > last then last = id end
  end
  first, last = string.match(first, '^%d+'), string.match(last, '^%d+')
  local found = redis.pcall('XPENDING', stream, group, first, last, 2 * count, consumer)
  if found.err then return nil end
  for _, held in ipairs(found) do tokens[held[1]] = held[4] end
  return tokens
end

local function bury(stream, dead, id)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then
    redis.call('XADD', dead, 'MAXLEN', '~', tonumber(ARGV[4]), '*',
      'm', entry[2][2], 'r', ARGV[6], 's', entry[2][4] or '')
    redis.call('PEXPIRE', dead, ARGV[5])
  end
end

-- What is left of what each sender has unacknowledged; nothing is kept of who has nothing left.
local function settle_accounts(charges, freed)
  local fields, left, gone = {}, {}, {}
  for sender in pairs(freed) do
    fields[#fields + 1], fields[#fields + 2] = 'n:' .. sender, 'b:' .. sender
  end
  local held = redis.call('HMGET', charges, unpack(fields))
  for i = 1, #fields, 2 do
    local account = freed[string.sub(fields[i], 3)]
    local messages = tonumber(held[i] or 0) - account[1]
    if messages > 0 then
      left[#left + 1], left[#left + 2] = fields[i], messages
      left[#left + 1], left[#left + 2] = fields[i + 1], tonumber(held[i + 1] or 0) - account[2]
    else
      gone[#gone + 1], gone[#gone + 2] = fields[i], fields[i + 1]
    end
  end
  if #left > 0 then redis.call('HSET', charges, unpack(left)) end
  if #gone > 0 then redis.call('HDEL', charges, unpack(gone)) end
end

local function let_go(name, mine, freed)
  local stream, charges = name .. ':in', name .. ':from'
  if action == 'bury' then
    for _, id in ipairs(mine) do bury(stream, name .. ':dead', id) end
  end
  redis.call('XACK', stream, group, unpack(mine))
  redis.call('XDEL', stream, unpack(mine))
  if next(freed) then settle_accounts(charges, freed) end
end

local function finish(owner, from, count)
  local name = KEYS[1] .. ':a:' .. owner
  local stream = name .. ':in'
  local tokens = tokens_of(stream, from, count)
  if not tokens then return {} end -- the mailbox is gone with all that was in it
  local mine, lost, freed, seen = {}, {}, {}, {}
  for i = from, from + 4 * (count - 1), 4 do
    local id, token, sender = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
    local held = nil
    if not seen[id] and tokens[id] ~= token then
      held = redis.call('XPENDING', stream, group, id, id, 1)[1]
    end
    if seen[id] then
      -- named twice
    elseif tokens[id] == token or (held and held[2] == consumer and held[4] == token) then
      mine[#mine + 1] = id
      if sender ~= '' then
        local account = freed[sender]
        if not account then
          account = { 0, 0 }
          freed[sender] = account
        end
        account[1], account[2] = account[1] + 1, account[2] + tonumber(ARGV[i + 3])
      end
    elseif held or action == 'extend' then
      lost[#lost + 1] = id
    end
    seen[id] = true
  end
  if #mine == 0 then return lost end
  if action == 'extend' then
    mine[#mine + 1] = 'JUSTID'
    redis.call('XCLAIM', stream, group, consumer, 0, unpack(mine))
  else
    let_go(name, mine, freed)
  end
  return lost
end

local answers, i = {}, 7
while i <= #ARGV do
  local count = tonumber(ARGV[i + 1])
  answers[#answers + 1] = finish(ARGV[i], i + 2, count)
  i = i + 2 + 4 * count
end
return answers
