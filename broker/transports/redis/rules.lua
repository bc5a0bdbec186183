-- The rules of broker/thread.py, where races are decided. What a table lacks is empty or nought.

local MAX_MESSAGES_A_SIDE, MAX_SEEN, MAX_REPEATS = 32, 128, 8
local STEPS = {
  ['open seller quote'] = 'open', ['open seller counter'] = 'open',
  ['open buyer counter'] = 'open',
  ['open buyer withdraw'] = 'open', ['open seller withdraw'] = 'open',
  ['open buyer accept'] = 'held', ['open seller accept'] = 'agreed',
  ['open buyer reject'] = 'closed', ['open seller reject'] = 'closed',
  ['open seller refuse'] = 'closed',
  ['open buyer not_understood'] = 'open', ['open seller not_understood'] = 'open',
  ['agreed buyer order'] = 'held',
  ['agreed buyer decommit'] = 'decommitted', ['agreed seller decommit'] = 'decommitted',
  ['agreed seller failure'] = 'failed',
  ['agreed buyer not_understood'] = 'agreed', ['agreed seller not_understood'] = 'agreed',
  ['held seller result'] = 'delivered', ['held seller failure'] = 'failed',
  ['held buyer decommit'] = 'decommitted', ['held seller decommit'] = 'decommitted',
  ['held buyer not_understood'] = 'held', ['held seller not_understood'] = 'held',
}
local ENDINGS = {
  settled = { delivered = true },
  failed = { open = true, agreed = true, held = true, delivered = true },
  expired = { open = true, agreed = true, held = true },
  closed = { open = true },
}
local ENDED = { delivered = true, settled = true, expired = true, closed = true, failed = true,
  decommitted = true }
local BARGAINING = { cfp = true, quote = true, counter = true, accept = true, reject = true,
  refuse = true, withdraw = true }
local OFFERING = { quote = true, counter = true }
local BINDING = { order = true, result = true, failure = true, decommit = true }
local OTHER = { buyer = 'seller', seller = 'buyer' }

local function set_offer(thread, role, said)
  thread[role .. '_offer'] = said.offer
  thread[role .. '_until'] = said.valid_until
  thread[role .. '_price'] = said.price
  thread[role .. '_makes'] = said.makes
end

local function strike(thread, said, role, state, now)
  local taken = OTHER[role]
  thread.state, thread.agreed_ms, thread.hold = state, now, said.hold
  thread.agreed, thread.agreement = thread[taken .. '_price'], thread[taken .. '_makes']
  if said.ordered then thread.deadline = said.deadline end
end

local function take_posted(said, now)
  if not said.ordered then return 'OUT_OF_TURN' end
  if not said.posted then return 'NO_STANDING_OFFER' end
  if said.posted ~= said.offer or said.agreement ~= said.makes then return 'OFFER_CHANGED' end
  if now > (said.valid_until or 0) then return 'OFFER_EXPIRED' end
  return 'OK'
end

-- Answers the verdict on a first message, and the thread that it opens.
local function begin(said, now)
  local posted = said.type == 'accept' and said.opening
  if said.type ~= 'cfp' and not posted then return 'UNKNOWN_THREAD' end
  if said.sender == said.to then return 'NOT_PARTY' end
  if said.seq ~= 1 then return 'OUT_OF_ORDER' end
  if now > (said.reply_by or 0) or now > (said.deadline or 0) then return 'LATE' end
  local verdict = posted and take_posted(said, now) or 'OK'
  if verdict ~= 'OK' then return verdict end
  local thread = {
    buyer = said.sender, seller = said.to, group = said.group, skill = said.skill,
    mode = said.mode, rounds = said.rounds, deadline = said.deadline,
    input_digest = said.input_digest, opened_ms = now, state = 'open', turn = 'seller',
    buyer_seq = 1, buyer_reply_by = said.reply_by, messages = 1,
  }
  if posted then
    set_offer(thread, 'seller', said)
    thread.asked = said.price
    strike(thread, said, 'buyer', 'held', now)
  end
  return 'OK', thread
end

local function is_its_turn(thread, said, role)
  if not STEPS[thread.state .. ' ' .. role .. ' ' .. said.type] or said.opening then return false end
  if OFFERING[said.type] then
    return thread.turn == role and (role == 'seller' or thread.mode == 'bargain')
  end
  return said.type ~= 'accept' or (said.ordered or false) == (role == 'buyer')
end

local function is_late(thread, said, role, now)
  if now > (said.reply_by or 0) then return true end
  local deadline = thread.deadline or 0
  if OFFERING[said.type] then
    return now > (thread[OTHER[role] .. '_reply_by'] or 0) or now > deadline
  end
  if said.type == 'accept' or said.type == 'order' then
    return now > deadline or (said.ordered and now > (said.deadline or 0))
  end
  return said.type == 'result' and now > deadline
end

local function names_what_stands(thread, said, role, now)
  if OFFERING[said.type] then return said.skill == thread.skill and 'OK' or 'OFFER_CHANGED' end
  if BINDING[said.type] then
    return said.agreement == thread.agreement and 'OK' or 'OFFER_CHANGED'
  end
  if said.type ~= 'accept' and said.type ~= 'withdraw' then return 'OK' end
  local taken = said.type == 'withdraw' and role or OTHER[role]
  if not thread[taken .. '_offer'] then return 'NO_STANDING_OFFER' end
  if thread[taken .. '_offer'] ~= said.offer
    or (said.ordered and said.agreement ~= thread[taken .. '_makes']) then
    return 'OFFER_CHANGED'
  end
  if said.type == 'accept' and now > (thread[taken .. '_until'] or 0) then
    return 'OFFER_EXPIRED'
  end
  return 'OK'
end

local function judge(thread, said, role, now)
  if ENDED[thread.state] or (thread.state ~= 'open' and BARGAINING[said.type]) then
    return 'CLOSED'
  end
  if not is_its_turn(thread, said, role) then return 'OUT_OF_TURN' end
  if said.seq ~= (thread[role .. '_seq'] or 0) + 1 then return 'OUT_OF_ORDER' end
  if is_late(thread, said, role, now) then return 'LATE' end
  if said.seq > MAX_MESSAGES_A_SIDE or (OFFERING[said.type]
    and (thread[role .. '_offers'] or 0) >= (thread.rounds or 0)) then
    return 'ROUND_LIMIT'
  end
  return names_what_stands(thread, said, role, now)
end

local function apply(thread, said, role, now)
  local state = STEPS[thread.state .. ' ' .. role .. ' ' .. said.type]
  thread[role .. '_seq'], thread[role .. '_reply_by'] = said.seq, said.reply_by
  thread.messages = thread.messages + 1
  if OFFERING[said.type] then
    thread[role .. '_offers'] = (thread[role .. '_offers'] or 0) + 1
    set_offer(thread, role, said)
    if not thread.asked and role == 'seller' then thread.asked = said.price end
    thread.turn = OTHER[role]
  elseif said.type == 'withdraw' then
    set_offer(thread, role, {})
  elseif said.type == 'accept' then
    return strike(thread, said, role, state, now)
  elseif said.type == 'order' then
    thread.hold, thread.deadline = said.hold, said.deadline
  elseif said.type == 'result' then
    thread.receipt, thread.delivered_ms = said.receipt, now
  elseif ENDED[state] then
    thread.code = said.code
  end
  thread.state = state
end

local function role_of(thread, said)
  if said.sender == thread.buyer and said.to == thread.seller then return 'buyer' end
  if said.sender == thread.seller and said.to == thread.buyer then return 'seller' end
end

-- Answers the verdict on an ending, and the first one where it is a repetition.
local function finish(thread, ending, now)
  if not thread then return 'UNKNOWN_THREAD' end
  if thread.state == ending.kind then
    if ending.kind ~= 'settled' or thread.tx == ending.tx then return 'DUP', 'OK' end
    return 'CLOSED'
  end
  if not ENDINGS[ending.kind][thread.state] then
    return ENDED[thread.state] and 'CLOSED' or 'OUT_OF_TURN'
  end
  if ending.kind == 'expired' and thread.state == 'held' and now < (thread.deadline or 0) then
    return 'OUT_OF_TURN'
  end
  thread.state = ending.kind
  if ending.kind == 'settled' then
    thread.settled_ms, thread.paid, thread.tx = now, ending.paid, ending.tx
  elseif not thread.code then
    thread.code = ending.code or ending.kind
  end
  return 'OK'
end
