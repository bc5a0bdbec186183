-- What a ruling makes public: `told` and `told_at_end` of broker/said.py.

local FEED = MARKET .. 'feed'

local function tell(kind, data)
  local raw = '{"kind":"' .. kind .. '","ts":' .. string.format('%d', NOW)
    .. ',"data":' .. cjson.encode(data) .. '}'
  redis.call('XADD', FEED, 'MAXLEN', '~', LIMITS[7], '*', 'e', raw)
end

local function reveal(name, thread)
  tell('offer.revealed', { group = thread.group or '', thread = name, from = thread.seller,
    price = thread.seller_price or '' })
end

local function tell_opened(name, thread)
  tell('negotiation.opened', { group = thread.group or '', thread = name,
    skill = thread.skill or '', mode = thread.mode or '', buyer = thread.buyer,
    sellers = { thread.seller } })
end

local function tell_offer(name, thread, said, sealed)
  local side = said.sender == thread.buyer and 'buyer' or 'seller'
  local offered = { group = thread.group or '', thread = name, from = said.sender, to = said.to,
    side = side, round = thread[side .. '_offers'], message = said.id }
  if sealed then offered.sealed = 1 else offered.price = said.price or '' end
  tell('offer', offered)
end

local function tell_accepted(name, thread)
  local rounds = math.max(1, thread.buyer_offers or 0, thread.seller_offers or 0)
  tell('accepted', { group = thread.group or '', thread = name,
    agreement = thread.agreement or '', buyer = thread.buyer, seller = thread.seller,
    skill = thread.skill or '', price = thread.agreed or '', mode = thread.mode or '',
    rounds = rounds, asked = thread.asked or '' })
end

local function told(name, thread, said)
  local sealed, kind = thread.mode == 'tender', said.type
  if kind == 'cfp' or said.opening then tell_opened(name, thread) end
  if OFFERING[kind] then tell_offer(name, thread, said, sealed) end
  if sealed and (kind == 'accept' or kind == 'reject') and thread.seller_offer then
    reveal(name, thread)
  end
  if kind == 'accept' then tell_accepted(name, thread) end
  if said.ordered then
    tell('held', { thread = name, hold = thread.hold or '',
      amount = thread.hold and thread.agreed or '0' })
  end
  if kind == 'result' then
    tell('delivered', { thread = name, agreement = thread.agreement or '',
      receipt = thread.receipt or '' })
  elseif kind == 'failure' then
    tell('failed', { group = thread.group or '', thread = name, code = said.code or '' })
  elseif kind == 'reject' or kind == 'refuse' or kind == 'decommit' then
    tell(kind == 'refuse' and 'refused' or 'closed', { group = thread.group or '', thread = name,
      from = said.sender, code = said.code or '' })
  end
end

local function told_at_end(name, thread)
  if thread.state == 'settled' then
    return tell('settled', { thread = name, group = thread.group or '',
      agreement = thread.agreement or '', skill = thread.skill or '', buyer = thread.buyer,
      seller = thread.seller, paid = thread.paid or '', tx = thread.tx or '',
      hold = thread.hold or '' })
  end
  if thread.mode == 'tender' and not thread.agreement and thread.seller_offer then
    reveal(name, thread)
  end
  tell(thread.state == 'failed' and 'failed' or 'closed', { group = thread.group or '',
    thread = name, code = thread.code or '' })
end
