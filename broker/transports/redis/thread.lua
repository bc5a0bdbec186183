-- The rules of broker/thread.py, where races are decided: one call judges and records atomically.
-- KEYS: header hash, transcript list, ids hash (one hash tag).
-- ARGV: operation ("say" or "end"), raw message, ttl in ms, then name, value, name, value ...
-- Answers {verdict, first verdict, deliver 0|1, now in ms, state, field, value, field, value ...};
-- the fields are the header's, and only sent with the verdict OK.

local HEADER, LOG, IDS = KEYS[1], KEYS[2], KEYS[3]
local MAX_MESSAGES_A_SIDE, MAX_SEEN, MAX_REPEATS = 32, 128, 8

local STEPS = {
  open = {
    ['seller quote'] = 'open', ['seller counter'] = 'open', ['buyer counter'] = 'open',
    ['buyer withdraw'] = 'open', ['seller withdraw'] = 'open',
    ['buyer accept'] = 'held', ['seller accept'] = 'agreed',
    ['buyer reject'] = 'closed', ['seller reject'] = 'closed', ['seller refuse'] = 'closed',
    ['buyer not_understood'] = 'open', ['seller not_understood'] = 'open',
  },
  agreed = {
    ['buyer order'] = 'held',
    ['buyer decommit'] = 'decommitted', ['seller decommit'] = 'decommitted',
    ['seller failure'] = 'failed',
    ['buyer not_understood'] = 'agreed', ['seller not_understood'] = 'agreed',
  },
  held = {
    ['seller result'] = 'delivered', ['seller failure'] = 'failed',
    ['buyer decommit'] = 'decommitted', ['seller decommit'] = 'decommitted',
    ['buyer not_understood'] = 'held', ['seller not_understood'] = 'held',
  },
}
local ENDINGS = {
  settled = { delivered = true },
  failed = { open = true, agreed = true, held = true, delivered = true },
  expired = { open = true, agreed = true, held = true },
}
local ENDED = { delivered = true, settled = true, expired = true, closed = true, failed = true,
  decommitted = true }
local BARGAINING = { cfp = true, quote = true, counter = true, accept = true, reject = true,
  refuse = true, withdraw = true }
local OFFERING = { quote = true, counter = true }
local BINDING = { order = true, result = true, failure = true, decommit = true }
local OTHER = { buyer = 'seller', seller = 'buyer' }

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl = tonumber(ARGV[3])

local said = {}
for i = 4, #ARGV, 2 do said[ARGV[i]] = ARGV[i + 1] end
local ordered, opening = said.ordered == '1', said.opening == '1'

local thread = {}
local stored = redis.call('HGETALL', HEADER)
for i = 1, #stored, 2 do thread[stored[i]] = stored[i + 1] end
local known = #stored > 0

local changed = {}
local function set(name, value)
  thread[name] = value
  changed[#changed + 1] = name
  changed[#changed + 1] = value
end

local function number(value) return tonumber(value) or 0 end

local function whole(value) return string.format('%d', value) end

local function answer(verdict, first, deliver)
  local reply = { verdict, first or '', deliver and 1 or 0, now, thread.state or 'closed' }
  if verdict == 'OK' then
    for name, value in pairs(thread) do
      reply[#reply + 1] = name
      reply[#reply + 1] = value
    end
  end
  return reply
end

local function store()
  if #changed > 0 then redis.call('HSET', HEADER, unpack(changed)) end
end

local function note(verdict)
  if verdict ~= 'OK' and redis.call('HLEN', IDS) >= MAX_SEEN then return end
  redis.call('HSET', IDS, said.id, verdict .. ' ' .. said.digest .. ' 0')
end

local function record()
  store()
  redis.call('RPUSH', LOG, ARGV[2])
  note('OK')
  redis.call('PEXPIRE', HEADER, ttl)
  redis.call('PEXPIRE', LOG, ttl)
  redis.call('PEXPIRE', IDS, ttl)
  return answer('OK', nil, true)
end

local function strike(role, state)
  local taken = OTHER[role]
  set('state', state)
  set('agreed', thread[taken .. '_price'])
  set('agreement', thread[taken .. '_makes'])
  set('agreed_ms', whole(now))
  set('hold', said.hold)
  if ordered then set('deadline', said.deadline) end
end

local function set_offer(role, offer, valid_until, price, makes)
  set(role .. '_offer', offer)
  set(role .. '_until', valid_until)
  set(role .. '_price', price)
  set(role .. '_makes', makes)
end

local function take_posted()
  if not ordered then return 'OUT_OF_TURN' end
  if said.posted == '' then return 'NO_STANDING_OFFER' end
  if said.posted ~= said.offer or said.agreement ~= said.makes then return 'OFFER_CHANGED' end
  if now > number(said.valid_until) then return 'OFFER_EXPIRED' end
  return 'OK'
end

local function begin()
  local posted = said.type == 'accept' and opening
  if said.type ~= 'cfp' and not posted then return answer('UNKNOWN_THREAD') end
  local verdict = 'OK'
  if said.sender == said.to then
    verdict = 'NOT_PARTY'
  elseif said.seq ~= '1' then
    verdict = 'OUT_OF_ORDER'
  elseif now > number(said.reply_by) or now > number(said.deadline) then
    verdict = 'LATE'
  elseif posted then
    verdict = take_posted()
  end
  if verdict ~= 'OK' then return answer(verdict) end
  set('buyer', said.sender)
  set('seller', said.to)
  for _, name in ipairs({ 'group', 'skill', 'mode', 'rounds', 'deadline', 'input_digest' }) do
    set(name, said[name])
  end
  set('opened_ms', whole(now))
  set('state', 'open')
  set('turn', 'seller')
  for _, name in ipairs({ 'asked', 'agreed', 'agreement', 'hold', 'receipt', 'code', 'paid', 'tx' }) do
    set(name, '')
  end
  for _, name in ipairs({ 'agreed_ms', 'delivered_ms', 'settled_ms' }) do set(name, '0') end
  for _, role in ipairs({ 'buyer', 'seller' }) do
    set(role .. '_seq', '0')
    set(role .. '_offers', '0')
    set(role .. '_reply_by', '0')
    set_offer(role, '', '0', '', '')
  end
  set('buyer_seq', '1')
  set('buyer_reply_by', said.reply_by)
  if posted then
    set_offer('seller', said.offer, said.valid_until, said.price, said.makes)
    set('asked', said.price)
    strike('buyer', 'held')
  end
  return record()
end

local function again(seen)
  local first, digest, repeats = string.match(seen, '^(%S+) (%S+) (%d+)$')
  if digest ~= said.digest then return answer('OUT_OF_ORDER') end
  local deliver = first == 'OK' and number(repeats) < MAX_REPEATS
  if deliver then
    redis.call('HSET', IDS, said.id, first .. ' ' .. digest .. ' ' .. whole(number(repeats) + 1))
  end
  return answer('DUP', first, deliver)
end

local function is_its_turn(role)
  local steps = STEPS[thread.state]
  if not steps or not steps[role .. ' ' .. said.type] or opening then return false end
  if OFFERING[said.type] then
    return thread.turn == role and (role == 'seller' or thread.mode == 'bargain')
  end
  return said.type ~= 'accept' or ordered == (role == 'buyer')
end

local function is_late(role)
  if now > number(said.reply_by) then return true end
  if OFFERING[said.type] then
    return now > number(thread[OTHER[role] .. '_reply_by']) or now > number(thread.deadline)
  end
  if said.type == 'accept' or said.type == 'order' then
    return now > number(thread.deadline) or (ordered and now > number(said.deadline))
  end
  return said.type == 'result' and now > number(thread.deadline)
end

local function names_what_stands(role)
  if OFFERING[said.type] then
    return said.skill == thread.skill and 'OK' or 'OFFER_CHANGED'
  end
  if BINDING[said.type] then
    return said.agreement == thread.agreement and 'OK' or 'OFFER_CHANGED'
  end
  if said.type ~= 'accept' and said.type ~= 'withdraw' then return 'OK' end
  local taken = said.type == 'withdraw' and role or OTHER[role]
  if thread[taken .. '_offer'] == '' then return 'NO_STANDING_OFFER' end
  if thread[taken .. '_offer'] ~= said.offer
    or (ordered and said.agreement ~= thread[taken .. '_makes']) then
    return 'OFFER_CHANGED'
  end
  if said.type == 'accept' and now > number(thread[taken .. '_until']) then
    return 'OFFER_EXPIRED'
  end
  return 'OK'
end

local function judge(role)
  if ENDED[thread.state] or (thread.state ~= 'open' and BARGAINING[said.type]) then
    return 'CLOSED'
  end
  if not is_its_turn(role) then return 'OUT_OF_TURN' end
  if number(said.seq) ~= number(thread[role .. '_seq']) + 1 then return 'OUT_OF_ORDER' end
  if is_late(role) then return 'LATE' end
  if number(said.seq) > MAX_MESSAGES_A_SIDE or (OFFERING[said.type]
    and number(thread[role .. '_offers']) >= number(thread.rounds)) then
    return 'ROUND_LIMIT'
  end
  return names_what_stands(role)
end

local function apply(role)
  local state = STEPS[thread.state][role .. ' ' .. said.type]
  set(role .. '_seq', said.seq)
  set(role .. '_reply_by', said.reply_by)
  if OFFERING[said.type] then
    set(role .. '_offers', whole(number(thread[role .. '_offers']) + 1))
    set_offer(role, said.offer, said.valid_until, said.price, said.makes)
    if thread.asked == '' and role == 'seller' then set('asked', said.price) end
    set('turn', OTHER[role])
  elseif said.type == 'withdraw' then
    set_offer(role, '', '0', '', '')
  elseif said.type == 'accept' then
    return strike(role, state)
  elseif said.type == 'order' then
    set('hold', said.hold)
    set('deadline', said.deadline)
  elseif said.type == 'result' then
    set('receipt', said.receipt)
    set('delivered_ms', whole(now))
  elseif ENDED[state] then
    set('code', said.code)
  end
  set('state', state)
end

local function say()
  if not known then return begin() end
  local role
  if said.sender == thread.buyer and said.to == thread.seller then
    role = 'buyer'
  elseif said.sender == thread.seller and said.to == thread.buyer then
    role = 'seller'
  else
    return answer('NOT_PARTY')
  end
  local seen = redis.call('HGET', IDS, said.id)
  if seen then return again(seen) end
  local verdict = judge(role)
  if verdict ~= 'OK' then
    note(verdict)
    return answer(verdict)
  end
  apply(role)
  return record()
end

local function finish()
  if not known then return answer('UNKNOWN_THREAD') end
  if thread.state == said.kind then
    if said.kind ~= 'settled' or thread.tx == said.tx then return answer('DUP', 'OK', false) end
    return answer('CLOSED')
  end
  if not ENDINGS[said.kind][thread.state] then
    return answer(ENDED[thread.state] and 'CLOSED' or 'OUT_OF_TURN')
  end
  if said.kind == 'expired' and thread.state == 'held' and now < number(thread.deadline) then
    return answer('OUT_OF_TURN')
  end
  set('state', said.kind)
  if said.kind == 'settled' then
    set('settled_ms', whole(now))
    set('paid', said.paid)
    set('tx', said.tx)
  elseif thread.code == '' then
    set('code', said.kind)
  end
  store()
  return answer('OK')
end

if ARGV[1] == 'end' then return finish() end
return say()
