-- Post messages and endings of threads, as many as come at once: room, place, ruling, record, feed
-- and delivery of each are one step, or none of them.
-- A thread is a hash: "h" its header, "m1", "m2" ... what was said, "iID" the first verdict on a
-- message, its digest and how often it came again.
-- ARGV: limits (those of room.lua; then ttl of a thread in ms, open threads between two, events of
--       the feed, threads of a group, before when recent groups are forgotten or 0, how many are
--       kept); then for each: thread, "say" or "end", what is said (MessagePack), raw message.
-- Answers now in ms, then for each {verdict, first verdict, state}, or why there is no room: {FULL},
-- {QUOTA} or {THREADS, in how many ms there is a place at the latest}; {BROKEN, why} for a failure.

local TTL, OPEN_THREADS, GROUP_SIZE = LIMITS[5], LIMITS[6], LIMITS[8]
local GROUPS = MARKET .. 'groups'

local function pair_of(buyer, seller) return MARKET .. 'p:' .. buyer .. ':' .. seller end

-- Answers nothing where two parties may open one thread more, else when they may.
local function wait_for_place(pair)
  if redis.call('ZCARD', pair) < OPEN_THREADS then return nil end
  redis.call('ZREMRANGEBYSCORE', pair, '-inf', NOW)
  if redis.call('ZCARD', pair) < OPEN_THREADS then return nil end
  return tonumber(redis.call('ZRANGE', pair, 0, 0, 'WITHSCORES')[2]) - NOW
end

local function take_place(pair, name, said)
  local until_ms = math.min(said.deadline or 0, NOW + TTL)
  local left = math.max(until_ms - NOW, 1)
  redis.call('ZADD', pair, until_ms, name)
  if redis.call('PTTL', pair) < left then redis.call('PEXPIRE', pair, left) end
end

-- A group is a list: its buyer, then its threads.
local function outsider(group, buyer)
  local first = redis.call('LINDEX', group, 0)
  if first and first ~= buyer then return 'NOT_PARTY' end
  if first and redis.call('LLEN', group) > GROUP_SIZE then return 'ROUND_LIMIT' end
end

local function join(group, said, name)
  if redis.call('RPUSHX', group, name) == 0 then
    redis.call('RPUSH', group, said.sender, name)
    redis.call('ZADD', GROUPS, 'NX', NOW, said.group)
    if LIMITS[9] > 0 then
      redis.call('ZREMRANGEBYSCORE', GROUPS, '-inf', LIMITS[9])
      redis.call('ZREMRANGEBYRANK', GROUPS, 0, -LIMITS[10] - 1)
    end
  end
  redis.call('PEXPIRE', group, TTL)
end

local function deliver(said, raw) append(said.to, said.sender, raw) end

local function record(key, name, thread, said, raw)
  redis.call('HSET', key, 'h', cmsgpack.pack(thread), 'm' .. thread.messages, raw,
    'i' .. said.id, 'OK ' .. said.digest .. ' 0')
  redis.call('PEXPIRE', key, TTL)
  if said.type == 'accept' and thread.agreement then
    redis.call('SET', MARKET .. 'd:' .. thread.agreement, name, 'PX', TTL)
  end
  if ENDED[thread.state] then redis.call('ZREM', pair_of(thread.buyer, thread.seller), name) end
  told(name, thread, said)
  deliver(said, raw)
  return { 'OK', '', thread.state }
end

local function open(key, name, said, raw)
  local pair, group = pair_of(said.sender, said.to), MARKET .. 'g:' .. (said.group or '')
  if said.group then
    local wait_ms = wait_for_place(pair)
    if wait_ms then return { 'THREADS', math.max(wait_ms, 1) } end
    local verdict = outsider(group, said.sender)
    if verdict then return { verdict, '', 'closed' } end
  end
  local verdict, thread = begin(said, NOW)
  if verdict ~= 'OK' then return { verdict, '', 'closed' } end
  if said.group then
    take_place(pair, name, said)
    join(group, said, name)
  end
  return record(key, name, thread, said, raw)
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
  local thread = cmsgpack.unpack(stored[1])
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
  local thread = stored and cmsgpack.unpack(stored)
  local verdict, first = finish(thread, ending, NOW)
  if verdict == 'OK' then
    redis.call('HSET', key, 'h', cmsgpack.pack(thread))
    redis.call('ZREM', pair_of(thread.buyer, thread.seller), name)
    told_at_end(name, thread)
  end
  return { verdict, first or '', thread and thread.state or 'closed' }
end

local function post(name, how, packed, raw)
  local what = cmsgpack.unpack(packed)
  if how == 'say' then return say(name, what, raw) end
  return finish_thread(name, what)
end

-- A thread that is damaged is nobody else's trouble.
local answers = { NOW }
for i = FIRST, #ARGV, 4 do
  local well, answer = pcall(post, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  answers[#answers + 1] = well and answer
    or { 'BROKEN', type(answer) == 'table' and answer.err or tostring(answer) }
end
write_accounts()
return answers
