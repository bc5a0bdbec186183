-- What a ruling makes public: `told` and `told_at_end` of broker/said.py.
-- Events are written as text, which costs a fraction of encoding tables. All in them but `code` was
-- checked before: ids, digests, keys, names of skills and modes, amounts.

local FEED, TS = MARKET .. 'feed', '","ts":' .. string.format('%d', NOW) .. ',"data":{"thread":"'
local trimmed = false

-- An event begins with its thread; `rest` begins with a comma.
local function event(kind, name, rest)
  return '{"kind":"' .. kind .. TS .. name .. '"' .. rest .. '}}'
end

local function field(key, value) return ',"' .. key .. '":"' .. (value or '') .. '"' end

local function coded(code) return ',"code":' .. cjson.encode(code or '') end

-- The feed is cut once a call.
local function tell(events)
  for _, raw in ipairs(events) do
    if trimmed then
      redis.call('XADD', FEED, '*', 'e', raw)
    else
      redis.call('XADD', FEED, 'MAXLEN', '~', LIMITS[7], '*', 'e', raw)
      trimmed = true
    end
  end
end

local function revealed(name, thread, group)
  return event('offer.revealed', name, group .. field('from', thread.seller)
    .. field('price', thread.seller_price))
end

local function opened(name, thread, group)
  return event('negotiation.opened', name, group .. field('skill', thread.skill)
    .. field('mode', thread.mode) .. field('buyer', thread.buyer)
    .. ',"sellers":["' .. thread.seller .. '"]')
end

local function offered(name, thread, said, sealed, group)
  local side = said.sender == thread.buyer and 'buyer' or 'seller'
  return event('offer', name, group .. field('from', said.sender) .. field('to', said.to)
    .. field('side', side) .. ',"round":' .. thread[side .. '_offers'] .. field('message', said.id)
    .. (sealed and ',"sealed":1' or field('price', said.price)))
end

local function accepted(name, thread, group)
  local rounds = math.max(1, thread.buyer_offers or 0, thread.seller_offers or 0)
  return event('accepted', name, group .. field('agreement', thread.agreement)
    .. field('buyer', thread.buyer) .. field('seller', thread.seller)
    .. field('skill', thread.skill) .. field('price', thread.agreed) .. field('mode', thread.mode)
    .. ',"rounds":' .. rounds .. field('asked', thread.asked))
end

local function held(name, thread)
  return event('held', name, field('hold', thread.hold)
    .. field('amount', thread.hold and thread.agreed or '0'))
end

local function told(name, thread, said)
  local sealed, kind, events = thread.mode == 'tender', said.type, {}
  local group = field('group', thread.group)
  local function add(raw) events[#events + 1] = raw end
  if kind == 'cfp' or said.opening then add(opened(name, thread, group)) end
  if OFFERING[kind] then add(offered(name, thread, said, sealed, group)) end
  if sealed and (kind == 'accept' or kind == 'reject') and thread.seller_offer then
    add(revealed(name, thread, group))
  end
  if kind == 'accept' then add(accepted(name, thread, group)) end
  if said.ordered then add(held(name, thread)) end
  if kind == 'result' then
    add(event('delivered', name, field('agreement', thread.agreement)
      .. field('receipt', thread.receipt)))
  elseif kind == 'failure' then
    add(event('failed', name, group .. coded(said.code)))
  elseif kind == 'reject' or kind == 'refuse' or kind == 'decommit' then
    add(event(kind == 'refuse' and 'refused' or 'closed', name,
      group .. field('from', said.sender) .. coded(said.code)))
  end
  return events
end

local function told_at_end(name, thread)
  local group = field('group', thread.group)
  if thread.state == 'settled' then
    return { event('settled', name, group .. field('agreement', thread.agreement)
      .. field('skill', thread.skill) .. field('buyer', thread.buyer)
      .. field('seller', thread.seller) .. field('paid', thread.paid) .. field('tx', thread.tx)
      .. field('hold', thread.hold)) }
  end
  local ended = event(thread.state == 'failed' and 'failed' or 'closed', name,
    group .. coded(thread.code))
  if thread.mode == 'tender' and not thread.agreement and thread.seller_offer then
    return { revealed(name, thread, group), ended }
  end
  return { ended }
end
