-- The server's time in ms: one for all that a call does.

local time = redis.call('TIME')
local NOW = time[1] * 1000 + math.floor(time[2] / 1000)
