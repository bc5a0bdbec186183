-- What a ruling makes public: `told` and `told_at_end` of broker/said.py.
-- Events are written as text, each in one expression: encoding tables took several times as long.
-- All in them but `code` was checked before: ids, digests, keys, names of skills, modes, amounts.

local tell, told, told_at_end

do
  local FEED = MARKET .. 'feed'
  local AT = '","ts":' .. string.format('%d', NOW) .. ',"data":{"thread":"'
  local trimmed = false

  -- The feed is cut once a call.
  function tell(events)
    for _, raw in ipairs(events) do
      if trimmed then
        redis.call('XADD', FEED, '*', 'e', raw)
      else
        redis.call('XADD', FEED, 'MAXLEN', '~', LIMITS[7], '*', 'e', raw)
        trimmed = true
      end
    end
  end

  local function opened(name, thread)
    return '{"kind":"negotiation.opened' .. AT .. name .. '","group":"' .. thread.group
      .. '","skill":"' .. thread.skill .. '","mode":"' .. thread.mode .. '","buyer":"'
      .. thread.buyer .. '","sellers":["' .. thread.seller .. '"]}}'
  end

  local function offered(name, thread, said)
    local side = said.sender == thread.buyer and 'buyer' or 'seller'
    local price = '","price":"' .. said.price .. '"}}'
    if thread.mode == 'tender' then price = '","sealed":1}}' end
    return '{"kind":"offer' .. AT .. name .. '","group":"' .. thread.group .. '","from":"'
      .. said.sender .. '","to":"' .. said.to .. '","side":"' .. side .. '","round":'
      .. thread[side .. '_offers'] .. ',"message":"' .. said.id .. price
  end

  local function revealed(name, thread)
    return '{"kind":"offer.revealed' .. AT .. name .. '","group":"' .. thread.group
      .. '","from":"' .. thread.seller .. '","price":"' .. thread.seller_price .. '"}}'
  end

  local function accepted(name, thread)
    return '{"kind":"accepted' .. AT .. name .. '","group":"' .. thread.group
      .. '","agreement":"' .. thread.agreement .. '","buyer":"' .. thread.buyer
      .. '","seller":"' .. thread.seller .. '","skill":"' .. thread.skill .. '","price":"'
      .. thread.agreed .. '","mode":"' .. thread.mode .. '","rounds":'
      .. math.max(1, thread.buyer_offers, thread.seller_offers) .. ',"asked":"' .. thread.asked
      .. '"}}'
  end

  local function held(name, thread)
    return '{"kind":"held' .. AT .. name .. '","hold":"' .. thread.hold .. '","amount":"'
      .. (thread.hold ~= '' and thread.agreed or '0') .. '"}}'
  end

  local function delivered(name, thread)
    return '{"kind":"delivered' .. AT .. name .. '","agreement":"' .. thread.agreement
      .. '","receipt":"' .. thread.receipt .. '"}}'
  end

  local function settled(name, thread)
    return '{"kind":"settled' .. AT .. name .. '","group":"' .. thread.group
      .. '","agreement":"' .. thread.agreement .. '","skill":"' .. thread.skill
      .. '","buyer":"' .. thread.buyer .. '","seller":"' .. thread.seller .. '","paid":"'
      .. thread.paid .. '","tx":"' .. thread.tx .. '","hold":"' .. thread.hold .. '"}}'
  end

  -- `by` is who ended the thread by a message of its own, where that is told.
  local function over(kind, name, thread, code, by)
    return '{"kind":"' .. kind .. AT .. name .. '","group":"' .. thread.group
      .. (by and '","from":"' .. by or '') .. '","code":' .. cjson.encode(code) .. '}}'
  end

  local OVER = { failure = 'failed', refuse = 'refused', reject = 'closed', decommit = 'closed' }

  function told(name, thread, said)
    local sealed, kind, events = thread.mode == 'tender', said.type, {}
    if kind == 'cfp' or said.opening then events[1] = opened(name, thread) end
    if OFFERING[kind] then events[#events + 1] = offered(name, thread, said) end
    if sealed and (kind == 'accept' or kind == 'reject') and thread.seller_offer ~= '' then
      events[#events + 1] = revealed(name, thread)
    end
    if kind == 'accept' then events[#events + 1] = accepted(name, thread) end
    if said.ordered then events[#events + 1] = held(name, thread) end
    if kind == 'result' then events[#events + 1] = delivered(name, thread) end
    if OVER[kind] then
      local by = kind ~= 'failure' and said.sender
      events[#events + 1] = over(OVER[kind], name, thread, said.code, by)
    end
    return events
  end

  function told_at_end(name, thread)
    if thread.state == 'settled' then return { settled(name, thread) } end
    local kind = thread.state == 'failed' and 'failed' or 'closed'
    local ended = over(kind, name, thread, thread.code)
    if thread.mode == 'tender' and thread.agreement == '' and thread.seller_offer ~= '' then
      return { revealed(name, thread), ended }
    end
    return { ended }
  end
end
