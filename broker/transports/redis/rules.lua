-- The rules of broker/thread.py, where races are decided. What there is not is empty or nought.

local MAX_SEEN, MAX_REPEATS = 128, 8
local ENDED = { delivered = true, settled = true, expired = true, closed = true, failed = true,
  decommitted = true }
local OFFERING = { quote = true, counter = true }
local BINDING = { order = true, result = true, failure = true, decommit = true }
local begin, judge, apply, role_of, finish

do
  local MAX_MESSAGES_A_SIDE = 32
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
    ['settled delivered'] = true,
    ['failed open'] = true, ['failed agreed'] = true, ['failed held'] = true,
    ['failed delivered'] = true,
    ['expired open'] = true, ['expired agreed'] = true, ['expired held'] = true,
    ['closed open'] = true,
  }
  local BARGAINING = { cfp = true, quote = true, counter = true, accept = true, reject = true,
    refuse = true, withdraw = true }
  local NO_OFFER = { offer = '', valid_until = 0, price = '', makes = '' }
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
    if said.posted == '' then return 'NO_STANDING_OFFER' end
    if said.posted ~= said.offer or said.agreement ~= said.makes then return 'OFFER_CHANGED' end
    if now > said.valid_until then return 'OFFER_EXPIRED' end
    return 'OK'
  end

  -- Answers the verdict on a first message, and the thread that it opens.
  function begin(said, now)
    local posted = said.type == 'accept' and said.opening
    if said.type ~= 'cfp' and not posted then return 'UNKNOWN_THREAD' end
    if said.sender == said.to then return 'NOT_PARTY' end
    if said.seq ~= 1 then return 'OUT_OF_ORDER' end
    if now > said.reply_by or now > said.deadline then return 'LATE' end
    local verdict = posted and take_posted(said, now) or 'OK'
    if verdict ~= 'OK' then return verdict end
    local thread = blank_thread()
    thread.buyer, thread.seller, thread.group = said.sender, said.to, said.group
    thread.skill, thread.mode, thread.rounds = said.skill, said.mode, said.rounds
    thread.deadline, thread.input_digest, thread.opened_ms = said.deadline, said.input_digest, now
    thread.buyer_seq, thread.buyer_reply_by = 1, said.reply_by
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
    return said.type ~= 'accept' or said.ordered == (role == 'buyer')
  end

  local function is_late(thread, said, role, now)
    if now > said.reply_by then return true end
    if OFFERING[said.type] then
      return now > thread[OTHER[role] .. '_reply_by'] or now > thread.deadline
    end
    if said.type == 'accept' or said.type == 'order' then
      return now > thread.deadline or (said.ordered and now > said.deadline)
    end
    return said.type == 'result' and now > thread.deadline
  end

  local function names_what_stands(thread, said, role, now)
    if OFFERING[said.type] then return said.skill == thread.skill and 'OK' or 'OFFER_CHANGED' end
    if BINDING[said.type] then
      return said.agreement == thread.agreement and 'OK' or 'OFFER_CHANGED'
    end
    if said.type ~= 'accept' and said.type ~= 'withdraw' then return 'OK' end
    local taken = said.type == 'withdraw' and role or OTHER[role]
    local standing = thread[taken .. '_offer']
    if standing == '' then return 'NO_STANDING_OFFER' end
    if standing ~= said.offer
      or (said.ordered and said.agreement ~= thread[taken .. '_makes']) then
      return 'OFFER_CHANGED'
    end
    if said.type == 'accept' and now > thread[taken .. '_until'] then
      return 'OFFER_EXPIRED'
    end
    return 'OK'
  end

  function judge(thread, said, role, now)
    if ENDED[thread.state] or (thread.state ~= 'open' and BARGAINING[said.type]) then
      return 'CLOSED'
    end
    if not is_its_turn(thread, said, role) then return 'OUT_OF_TURN' end
    if said.seq ~= thread[role .. '_seq'] + 1 then return 'OUT_OF_ORDER' end
    if is_late(thread, said, role, now) then return 'LATE' end
    if said.seq > MAX_MESSAGES_A_SIDE or (OFFERING[said.type]
      and thread[role .. '_offers'] >= thread.rounds) then
      return 'ROUND_LIMIT'
    end
    return names_what_stands(thread, said, role, now)
  end

  function apply(thread, said, role, now)
    local state = STEPS[thread.state .. ' ' .. role .. ' ' .. said.type]
    thread[role .. '_seq'], thread[role .. '_reply_by'] = said.seq, said.reply_by
    thread.messages = thread.messages + 1
    if OFFERING[said.type] then
      thread[role .. '_offers'] = thread[role .. '_offers'] + 1
      set_offer(thread, role, said)
      if thread.asked == '' and role == 'seller' then thread.asked = said.price end
      thread.turn = OTHER[role]
    elseif said.type == 'withdraw' then
      set_offer(thread, role, NO_OFFER)
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

  function role_of(thread, said)
    if said.sender == thread.buyer and said.to == thread.seller then return 'buyer' end
    if said.sender == thread.seller and said.to == thread.buyer then return 'seller' end
  end

  -- Answers the verdict on an ending, and the first one where it is a repetition.
  function finish(thread, ending, now)
    if not thread then return 'UNKNOWN_THREAD' end
    if thread.state == ending.kind then
      if ending.kind ~= 'settled' or thread.tx == ending.tx then return 'DUP', 'OK' end
      return 'CLOSED'
    end
    if not ENDINGS[ending.kind .. ' ' .. thread.state] then
      return ENDED[thread.state] and 'CLOSED' or 'OUT_OF_TURN'
    end
    if ending.kind == 'expired' and thread.state == 'held' and now < thread.deadline then
      return 'OUT_OF_TURN'
    end
    thread.state = ending.kind
    if ending.kind == 'settled' then
      thread.settled_ms, thread.paid, thread.tx = now, ending.paid, ending.tx
    elseif thread.code == '' then
      thread.code = ending.code ~= '' and ending.code or ending.kind
    end
    return 'OK'
  end
end
