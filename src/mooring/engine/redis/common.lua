-- What append.lua and read.lua have in common; it stands before each of them.

-- Lua would write large numbers with an exponent.
local function text(number)
    return string.format('%.0f', number)
end

-- Milliseconds, by the server's clock.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

-- Takes the entries out of a stream that are older than that.
local function forget(stream, ttl)
    while true do
        local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 16)
        local old
        for _, entry in ipairs(oldest) do
            if now - (tonumber(entry[2][8]) or 0) < ttl then break end
            old = entry[1]
        end
        if not old then return end
        redis.call('XTRIM', stream, 'MINID', '=', text(tonumber(string.match(old, '^%d+')) + 1))
    end
end

