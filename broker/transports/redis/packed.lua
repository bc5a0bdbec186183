-- What is said, endings and headers are packed as their fields alone, one after another in the
-- order of broker/thread.py, with nothing left out. Each is read into one table, which the next one
-- takes over: making tables took longer than all that the rules do with them.

local function blank_thread()
  return { buyer = '', seller = '', group = '', skill = '', mode = '', rounds = 0, deadline = 0,
    input_digest = '', opened_ms = 0, state = 'open', turn = 'seller', asked = '', agreed = '',
    agreement = '', hold = '', receipt = '', code = '', agreed_ms = 0, delivered_ms = 0,
    settled_ms = 0, paid = '', tx = '', messages = 1, buyer_seq = 0, buyer_offers = 0,
    buyer_reply_by = 0, buyer_offer = '', buyer_until = 0, buyer_price = '', buyer_makes = '',
    seller_seq = 0, seller_offers = 0, seller_reply_by = 0, seller_offer = '', seller_until = 0,
    seller_price = '', seller_makes = '' }
end

local read_said, read_ending, read_thread
do
  -- A table that has its keys from the start need not grow.
  local SAID = { id = '', digest = '', sender = '', to = '', type = '', seq = 0, reply_by = 0,
    group = '', skill = '', mode = '', rounds = 0, deadline = 0, input_digest = '',
    opening = false, offer = '', valid_until = 0, price = '', makes = '', posted = '',
    ordered = false, agreement = '', hold = '', receipt = '', code = '' }
  local ENDING, THREAD = {}, blank_thread()

  function read_said(packed)
    local s = SAID
    s.id, s.digest, s.sender, s.to, s.type, s.seq, s.reply_by, s.group, s.skill, s.mode, s.rounds,
      s.deadline, s.input_digest, s.opening, s.offer, s.valid_until, s.price, s.makes, s.posted,
      s.ordered, s.agreement, s.hold, s.receipt, s.code = cmsgpack.unpack(packed)
    return s
  end

  function read_ending(packed)
    local e = ENDING
    e.kind, e.code, e.paid, e.tx = cmsgpack.unpack(packed)
    return e
  end

  function read_thread(packed)
    local t = THREAD
    t.buyer, t.seller, t.group, t.skill, t.mode, t.rounds, t.deadline, t.input_digest, t.opened_ms,
      t.state, t.turn, t.asked, t.agreed, t.agreement, t.hold, t.receipt, t.code, t.agreed_ms,
      t.delivered_ms, t.settled_ms, t.paid, t.tx, t.messages, t.buyer_seq, t.buyer_offers,
      t.buyer_reply_by, t.buyer_offer, t.buyer_until, t.buyer_price, t.buyer_makes, t.seller_seq,
      t.seller_offers, t.seller_reply_by, t.seller_offer, t.seller_until, t.seller_price,
      t.seller_makes = cmsgpack.unpack(packed)
    if not t.seller_makes then error('a header lacks fields') end
    return t
  end
end

local function pack_thread(t)
  return cmsgpack.pack(t.buyer, t.seller, t.group, t.skill, t.mode, t.rounds, t.deadline,
    t.input_digest, t.opened_ms, t.state, t.turn, t.asked, t.agreed, t.agreement, t.hold,
    t.receipt, t.code, t.agreed_ms, t.delivered_ms, t.settled_ms, t.paid, t.tx, t.messages,
    t.buyer_seq, t.buyer_offers, t.buyer_reply_by, t.buyer_offer, t.buyer_until, t.buyer_price,
    t.buyer_makes, t.seller_seq, t.seller_offers, t.seller_reply_by, t.seller_offer,
    t.seller_until, t.seller_price, t.seller_makes)
end
