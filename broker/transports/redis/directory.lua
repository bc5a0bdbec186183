-- Cards under leases. All keys share one hash tag.
-- KEYS: presence (agent by end of lease), digests, cards, meta ("issued ttl"),
--       left (agent by the issue time of its last card), and changes, which all indexes follow.
-- ARGV: operation, then what it needs. Times are the server's.

local PRESENCE, DIGESTS, CARDS, META = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local LEFT, CHANGES = KEYS[5], KEYS[6]
local MAX_CHANGES, MAX_TTL_MS = 100000, 3600000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function meta_of(agent)
  local meta = redis.call('HGET', META, agent)
  if not meta then return nil end
  local issued, ttl = string.match(meta, '^(%d+) (%d+)')
  return { issued = tonumber(issued), ttl = tonumber(ttl) }
end

local function change(kind, agent, digest)
  return redis.call(
    'XADD', CHANGES, 'MAXLEN', '~', MAX_CHANGES, '*', 'k', kind, 'a', agent, 'd', digest
  )
end

local function remove(agent)
  local meta = meta_of(agent)
  if not meta then return false end
  redis.call('ZREM', PRESENCE, agent)
  redis.call('HDEL', DIGESTS, agent)
  redis.call('HDEL', CARDS, agent)
  redis.call('HDEL', META, agent)
  change('left', agent, '')
  return meta
end

local operations = {}

-- agent, digest, raw, issued, ttl -> {outcome, end of lease}
function operations.put(agent, digest, raw, issued, ttl)
  local meta, lease = meta_of(agent), now + tonumber(ttl)
  local floor = redis.call('ZSCORE', LEFT, agent)
  if (meta and tonumber(issued) < meta.issued) or (floor and tonumber(issued) <= tonumber(floor)) then
    return { 'stale', 0 }
  end
  local outcome = 'new'
  if meta then
    local until_ms = tonumber(redis.call('ZSCORE', PRESENCE, agent))
    local same = redis.call('HGET', DIGESTS, agent) == digest
    outcome = until_ms <= now and 'returned' or (same and 'same' or 'changed')
  end
  redis.call('ZADD', PRESENCE, lease, agent)
  redis.call('HSET', DIGESTS, agent, digest)
  redis.call('HSET', CARDS, agent, raw)
  redis.call('HSET', META, agent, issued .. ' ' .. ttl)
  if outcome ~= 'same' then change('listed', agent, digest) end
  return { outcome, lease }
end

-- agents ... -> those whose lease does not run any more
function operations.touch(...)
  local gone = {}
  for _, agent in ipairs({ ... }) do
    local until_ms, meta = redis.call('ZSCORE', PRESENCE, agent), nil
    if until_ms and tonumber(until_ms) > now then meta = meta_of(agent) end
    if meta then
      redis.call('ZADD', PRESENCE, now + meta.ttl, agent)
    else
      gone[#gone + 1] = agent
    end
  end
  return gone
end

-- agent -> 1 if it was listed
function operations.drop(agent)
  local meta = remove(agent)
  if not meta then return 0 end
  -- Its last card must not be listed again by somebody who kept the bytes.
  redis.call('ZADD', LEFT, meta.issued, agent)
  redis.call('ZREMRANGEBYSCORE', LEFT, '-inf', now - 2 * MAX_TTL_MS)
  return 1
end

-- agents ... -> {digest, end of lease, ...}; '' and 0 for whose lease does not run
function operations.present(...)
  if select('#', ...) == 0 then return {} end
  local leases, digests = redis.call('ZMSCORE', PRESENCE, ...), redis.call('HMGET', DIGESTS, ...)
  local found = {}
  for place, lease in ipairs(leases) do
    local until_ms = lease and tonumber(lease) or 0
    local here = until_ms > now and digests[place]
    found[2 * place - 1] = here or ''
    found[2 * place] = here and until_ms or 0
  end
  return found
end

-- agents ... -> {newest position, as `present`}: both at one time
function operations.look(...)
  return { operations.position(), operations.present(...) }
end

-- position, most -> {1 if changes after it may be lost, {kind, agent, ...}, new position}
function operations.changes(position, most)
  -- The oldest are trimmed first: whoever has seen an entry that is still there has lost nothing.
  if #redis.call('XRANGE', CHANGES, position, position) == 0 then return { 1, {}, position } end
  local flat, last = {}, position
  for _, entry in ipairs(redis.call('XRANGE', CHANGES, '(' .. position, '+', 'COUNT', most)) do
    last = entry[1]
    flat[#flat + 1] = entry[2][2]
    flat[#flat + 1] = entry[2][4]
  end
  return { 0, flat, last }
end

-- -> the newest position; there is one even if nothing has changed yet
function operations.position()
  local last = redis.call('XREVRANGE', CHANGES, '+', '-', 'COUNT', 1)[1]
  return last and last[1] or change('start', '', '')
end

-- -> how many leases run
function operations.count()
  return redis.call('ZCOUNT', PRESENCE, '(' .. now, '+inf')
end

-- -> agents whose lease is over
function operations.sweep()
  local gone = redis.call('ZRANGEBYSCORE', PRESENCE, '-inf', now, 'LIMIT', 0, 1000)
  for _, agent in ipairs(gone) do remove(agent) end
  return gone
end

return operations[ARGV[1]](unpack(ARGV, 2))
