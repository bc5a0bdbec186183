-- KEYS[1] is the market's hash tag: all its keys begin with it, so that they lie in one slot.
-- The first arguments are limits, in numbers; how many they are is the first.

local MARKET, LIMITS = KEYS[1] .. ':', {}
for i = 1, tonumber(ARGV[1]) do LIMITS[i] = tonumber(ARGV[i + 1]) end
local FIRST = #LIMITS + 2

-- What is used often is kept up to an hour longer than it must be, so that few uses renew it.
local HOUR = 3600000

local function keep(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms + HOUR) end
end
