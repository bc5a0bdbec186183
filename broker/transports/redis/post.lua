-- Post messages and endings of threads, as many as come at once: room, place, ruling, record, feed
-- and delivery of each are one step, or none of them.
-- A thread is a hash: "h" its header, "m1", "m2" ... what was said, "iID" the first verdict on a
-- message, its digest and how often it came again.
-- ARGV: limits (those of room.lua; then ttl of a thread in ms, open threads between two, events of
--       the feed, threads of a group, before when recent groups are forgotten or 0, how many are
--       kept); then for each: thread, "say" or "end", what is said (packed.lua), raw message.
-- Answers now in ms, then for each {verdict, first verdict, state}, or why there is no room: {FULL},
-- {QUOTA} or {THREADS, in how many ms there is a place at the latest}; {BROKEN, why} for a failure.

local TTL, OPEN_THREADS, GROUP_SIZE = LIMITS[5], LIMITS[6], LIMITS[8]

-- What a call changes about pairs and groups is written once, at its end; each is looked up once,
-- which is where a posting fails whose pair or group is damaged.
local wait_for_place, take_place, free_place, write_places
local group_of, outsider, join, write_groups

do
  local function pair_of(buyer, seller) return MARKET .. 'p:' .. buyer .. ':' .. seller end

  local places = {}

  -- "open" is at least how many threads two parties have open.
  local function places_of(pair)
    local held = places[pair]
    if not held then
      held = { taken = {}, freed = {}, until_ms = 0 }
      places[pair] = held
    end
    return held
  end

  local function write(pair, held)
    if #held.taken > 0 then
      redis.call('ZADD', pair, unpack(held.taken))
      keep(pair, math.max(held.until_ms - NOW, 1))
    end
    if #held.freed > 0 then redis.call('ZREM', pair, unpack(held.freed)) end
    held.taken, held.freed, held.until_ms = {}, {}, 0
  end

  -- Answers nothing where two parties may open one thread more, else when they may.
  function wait_for_place(buyer, seller)
    local pair = pair_of(buyer, seller)
    local held = places_of(pair)
    held.open = held.open or redis.call('ZCARD', pair)
    if held.open < OPEN_THREADS then return nil end
    write(pair, held)
    redis.call('ZREMRANGEBYSCORE', pair, '-inf', NOW)
    held.open = redis.call('ZCARD', pair)
    if held.open < OPEN_THREADS then return nil end
    return tonumber(redis.call('ZRANGE', pair, 0, 0, 'WITHSCORES')[2]) - NOW
  end

  function take_place(thread, name, said)
    local held = places_of(pair_of(thread.buyer, thread.seller))
    local until_ms = math.min(said.deadline, NOW + TTL)
    held.taken[#held.taken + 1], held.taken[#held.taken + 2] = until_ms, name
    held.open, held.until_ms = held.open + 1, math.max(held.until_ms, until_ms)
  end

  function free_place(thread, name)
    local freed = places_of(pair_of(thread.buyer, thread.seller)).freed
    freed[#freed + 1] = name
  end

  function write_places()
    for pair, held in pairs(places) do pcall(write, pair, held) end
  end
end

do
  local groups, GROUPS = {}, MARKET .. 'groups'

  -- A group is a list: its buyer, then its threads.
  function group_of(id)
    local held = groups[id]
    if not held then
      local key = MARKET .. 'g:' .. id
      held = { key = key, buyer = redis.call('LINDEX', key, 0), joining = {} }
      held.size = held.buyer and redis.call('LLEN', key) or 1
      held.known = held.buyer
      groups[id] = held
    end
    return held
  end

  function outsider(group, buyer)
    if group.buyer and group.buyer ~= buyer then return 'NOT_PARTY' end
    if group.buyer and group.size > GROUP_SIZE then return 'ROUND_LIMIT' end
  end

  function join(group, buyer, name)
    group.buyer, group.size = buyer, group.size + 1
    group.joining[#group.joining + 1] = name
  end

  local function write(group)
    if group.known then
      redis.call('RPUSH', group.key, unpack(group.joining))
    else
      redis.call('RPUSH', group.key, group.buyer, unpack(group.joining))
    end
    redis.call('PEXPIRE', group.key, TTL + HOUR)
  end

  local function note(fresh)
    redis.call('ZADD', GROUPS, 'NX', unpack(fresh))
    if LIMITS[9] > 0 then
      redis.call('ZREMRANGEBYSCORE', GROUPS, '-inf', LIMITS[9])
      redis.call('ZREMRANGEBYRANK', GROUPS, 0, -LIMITS[10] - 1)
    end
  end

  function write_groups()
    local fresh = {}
    for id, group in pairs(groups) do
      if #group.joining > 0 then
        if not group.known then fresh[#fresh + 1], fresh[#fresh + 2] = NOW, id end
        pcall(write, group)
      end
    end
    if #fresh > 0 then pcall(note, fresh) end
  end
end

local function deliver(said, raw) append(said.to, said.sender, raw) end

-- A thread is kept an hour longer than it must be, so that what is said in its first hour renews
-- nothing. `group` is the group that a first message opens a thread in.
local function record(key, name, thread, said, raw, group)
  local packed, events = pack_thread(thread), told(name, thread, said)
  redis.call('HSET', key, 'h', packed, 'm' .. thread.messages, raw,
    'i' .. said.id, 'OK ' .. said.digest .. ' 0')
  if group then
    take_place(thread, name, said)
    join(group, said.sender, name)
  end
  if thread.messages == 1 then
    redis.call('PEXPIRE', key, TTL + HOUR)
  elseif NOW > thread.opened_ms + HOUR then
    redis.call('PEXPIRE', key, TTL)
  end
  if said.type == 'accept' and thread.agreement ~= '' then
    redis.call('SET', MARKET .. 'd:' .. thread.agreement, name, 'PX', TTL)
  end
  if ENDED[thread.state] then free_place(thread, name) end
  tell(events)
  deliver(said, raw)
  return { 'OK', '', thread.state }
end

local function open(key, name, said, raw)
  local group = nil
  if said.group ~= '' then
    local wait_ms = wait_for_place(said.sender, said.to)
    if wait_ms then return { 'THREADS', math.max(wait_ms, 1) } end
    group = group_of(said.group)
    local verdict = outsider(group, said.sender)
    if verdict then return { verdict, '', 'closed' } end
  end
  local verdict, thread = begin(said, NOW)
  if verdict ~= 'OK' then return { verdict, '', 'closed' } end
  return record(key, name, thread, said, raw, group)
end

local function again(key, thread, said, raw, seen)
  local first, digest, repeats = string.match(seen, '^(%S+) (%S+) (%d+)$')
  if digest ~= said.digest then return { 'OUT_OF_ORDER', '', thread.state } end
  if first == 'OK' and tonumber(repeats) < MAX_REPEATS then
    redis.call('HSET', key, 'i' .. said.id, 'OK ' .. digest .. ' ' .. (repeats + 1))
    deliver(said, raw)
  end
  return { 'DUP', first, thread.state }
end

local function say(name, said, raw)
  if not BINDING[said.type] then
    local refused = refusal(said.to, said.sender, #raw)
    if refused then return { refused } end
  end
  local key = MARKET .. 't:' .. name
  local stored = redis.call('HMGET', key, 'h', 'i' .. said.id)
  if not stored[1] then return open(key, name, said, raw) end
  local thread = read_thread(stored[1])
  local role = role_of(thread, said)
  if not role then return { 'NOT_PARTY', '', thread.state } end
  if stored[2] then return again(key, thread, said, raw, stored[2]) end
  local verdict = judge(thread, said, role, NOW)
  if verdict == 'OK' then
    apply(thread, said, role, NOW)
    return record(key, name, thread, said, raw)
  end
  if redis.call('HLEN', key) - 1 - thread.messages < MAX_SEEN then
    redis.call('HSET', key, 'i' .. said.id, verdict .. ' ' .. said.digest .. ' 0')
  end
  return { verdict, '', thread.state }
end

local function finish_thread(name, ending)
  local key = MARKET .. 't:' .. name
  local stored = redis.call('HGET', key, 'h')
  local thread = stored and read_thread(stored)
  local had_ended = thread and ENDED[thread.state]
  local verdict, first = finish(thread, ending, NOW)
  if verdict == 'OK' then
    local packed, events = pack_thread(thread), told_at_end(name, thread)
    redis.call('HSET', key, 'h', packed)
    if not had_ended then free_place(thread, name) end
    tell(events)
  end
  return { verdict, first or '', thread and thread.state or 'closed' }
end

local function post(name, how, packed, raw)
  if how == 'say' then return say(name, read_said(packed), raw) end
  return finish_thread(name, read_ending(packed))
end

-- A thread that is damaged is nobody else's trouble, nor is a key that was looked up for it.
local answers = { NOW }
for i = FIRST, #ARGV, 4 do
  local well, answer = pcall(post, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  answers[#answers + 1] = well and answer
    or { 'BROKEN', type(answer) == 'table' and answer.err or tostring(answer) }
end
write_places()
write_groups()
write_accounts()
return answers
