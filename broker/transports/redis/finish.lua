-- Acknowledge, extend or bury messages, each only by the holder of its fencing token.
-- KEYS: stream, dead letters (one hash tag).
-- ARGV: "done", "extend" or "bury"; group, consumer, dead letters kept, their ttl in ms, reason;
--       then id, token ...
-- Answers the ids that somebody else holds now. An entry that is gone was acknowledged before.

local stream, dead = KEYS[1], KEYS[2]
local action, group, consumer = ARGV[1], ARGV[2], ARGV[3]

local function finish(id)
  if action == 'extend' then
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
    return
  end
  if action == 'bury' then
    local entry = redis.call('XRANGE', stream, id, id)[1]
    if entry then
      redis.call('XADD', dead, 'MAXLEN', '~', tonumber(ARGV[4]), '*',
        'm', entry[2][2], 'r', ARGV[6])
      redis.call('PEXPIRE', dead, ARGV[5])
    end
  end
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
end

local lost = {}
for i = 7, #ARGV, 2 do
  local id, token = ARGV[i], tonumber(ARGV[i + 1])
  local held = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if held and held[2] == consumer and held[4] == token then
    finish(id)
  elseif held or action == 'extend' then
    lost[#lost + 1] = id
  end
end
return lost
