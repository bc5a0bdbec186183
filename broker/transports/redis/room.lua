-- Room in mailboxes: a stream an owner, and beside it what each sender has unacknowledged there
-- ("n:SENDER" messages, "b:SENDER" bytes). Accounts are read once a call and written at its end.
-- LIMITS: ttl in ms, greatest depth, messages a sender, bytes a sender.

local refusal, append, write_accounts

do
  local boxes = {}

  local function box_of(owner)
    local box = boxes[owner]
    if not box then
      local name = MARKET .. 'a:' .. owner
      box = { stream = name .. ':in', charges = name .. ':from', accounts = {} }
      box.waiting = redis.call('XLEN', box.stream)
      box.depth = box.waiting
      boxes[owner] = box
    end
    return box
  end

  -- Where nothing waits nothing is owed.
  local function account(box, sender)
    local found = box.accounts[sender]
    if not found then
      local held = box.waiting > 0
        and redis.call('HMGET', box.charges, 'n:' .. sender, 'b:' .. sender) or {}
      found = { messages = tonumber(held[1] or 0), bytes = tonumber(held[2] or 0) }
      box.accounts[sender] = found
    end
    return found
  end

  function refusal(owner, sender, size)
    local box = box_of(owner)
    if box.depth >= LIMITS[2] then return 'FULL' end
    if sender == '' then return nil end
    local held = account(box, sender)
    if held.messages >= LIMITS[3] or held.bytes + size > LIMITS[4] then return 'QUOTA' end
  end

  function append(owner, sender, raw)
    local box = box_of(owner)
    redis.call('XADD', box.stream, '*', 'm', raw, 's', sender)
    box.depth, box.appended = box.depth + 1, true
    if sender == '' then return end
    local held = account(box, sender)
    held.messages, held.bytes, held.changed = held.messages + 1, held.bytes + #raw, true
  end

  local function write(box)
    local changed = {}
    for sender, held in pairs(box.accounts) do
      if held.changed then
        changed[#changed + 1], changed[#changed + 2] = 'n:' .. sender, held.messages
        changed[#changed + 1], changed[#changed + 2] = 'b:' .. sender, held.bytes
      end
    end
    if box.appended then keep(box.stream, LIMITS[1]) end
    if #changed > 0 then redis.call('HSET', box.charges, unpack(changed)) end
    if box.appended then keep(box.charges, LIMITS[1]) end
  end

  function write_accounts()
    for _, box in pairs(boxes) do pcall(write, box) end
  end
end
