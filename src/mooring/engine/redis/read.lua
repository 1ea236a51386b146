-- Reads parts of histories, all at one moment.
--
-- KEYS  the server's facts; then of each question: the topic's facts, its stream
-- ARGV  a name for what has none, milliseconds after which an unused topic is forgotten, milliseconds for which
--       publishers send again what was lost; then of each question: "from", "end" or "begin", epoch, offset, how many
--       publications at most, after how many bytes no further entry. "begin" is "end", with the latest publishers
-- Answers each question with {verdict, offset where it goes on, epoch, offset of the last one, entries,
-- {publisher, number, ...} of the youngest at or before that place, for "begin"}, or with {why not}.
--
-- A topic in which nobody has published takes no room, however many ask for it. Its position is zero in an epoch that
-- all such topics share, and that is another one after half the time for which a topic is remembered. A topic that begins
-- goes on from that epoch and the one before it: no topic can have begun and been forgotten in so short a time.

local HEAD = 3
local STRIDE = 5
local LATEST = 64
local CHUNK = 50
local RECOVERED, TRIMMED, ROLLED_BACK, UNKNOWN_EPOCH = 0, 1, 2, 3

local fresh, idle, again = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function line_of_server()
    local line = redis.call('HGET', KEYS[1], 'line')
    if not line then
        redis.call('HSET', KEYS[1], 'line', fresh)
        line = fresh
    end
    return line
end

local function judge(epoch, offset, current, top, chain)
    local boundary
    if epoch == current then
        boundary = top
    else
        for name, at in string.gmatch(chain, '([^,]+):(%d+)') do
            at = tonumber(at)
            if boundary and at < boundary then
                boundary = at -- a later break may have lost more
            elseif not boundary and name == epoch then
                boundary = at
            end
        end
    end
    if not boundary then return UNKNOWN_EPOCH, top end
    if offset > boundary then return ROLLED_BACK, boundary end
    return RECOVERED, offset
end

local function number_of(entry)
    return tonumber(string.match(entry[1], '^%d+'))
end

local function first_kept(stream, top, first)
    local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    if not newest or number_of(newest) ~= top then return top + 1 end
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    return math.max(number_of(oldest) - (tonumber(oldest[2][2]) or 0) + 1, first)
end

local function entries_behind(stream, offset, most, most_bytes)
    local found, many, bytes, cursor = {}, 0, 0, offset
    while many < most and bytes < most_bytes do
        local chunk = redis.call('XRANGE', stream, '(' .. text(cursor), '+', 'COUNT', CHUNK)
        for _, entry in ipairs(chunk) do
            if many >= most or bytes >= most_bytes then break end
            found[#found + 1] = entry
            cursor = number_of(entry)
            many = cursor - offset
            bytes = bytes + #(entry[2][10] or '')
        end
        if #chunk < CHUNK then break end
    end
    return found
end

local function answer(i)
    local meta, stream, at = KEYS[2 * i], KEYS[2 * i + 1], HEAD + (i - 1) * STRIDE
    local kind, asked, offset, most, most_bytes = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]),
        tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
    local facts = redis.call('HMGET', meta, 'e', 's', 'c', 't', 'f')
    local epoch, top, chain = facts[1], tonumber(facts[2] or '0'), facts[3] or ''
    local first = 1
    if epoch then
        local ttl = tonumber(facts[4])
        if ttl > 0 then
            forget(stream, ttl)
            redis.call('PEXPIRE', meta, ttl + idle)
        end
        first = first_kept(stream, top, tonumber(facts[5]))
    else
        local line, slot = line_of_server(), math.floor(now / (idle / 2))
        epoch, chain = text(slot) .. '@' .. line, text(slot - 1) .. '@' .. line .. ':0'
    end
    local verdict, begin = RECOVERED, top
    if kind == 'from' then
        if asked == '' and offset == 0 then
            begin = first - 1 -- who has read nothing wants all there is
        else
            verdict, begin = judge(asked, offset, epoch, top, chain)
        end
    end
    if begin + 1 < first then
        verdict, begin = math.max(verdict, TRIMMED), first - 1
    end
    local latest = {}
    if kind == 'begin' then
        for _, entry in ipairs(redis.call('XREVRANGE', stream, text(begin), '-', 'COUNT', LATEST)) do
            if now - (tonumber(entry[2][8]) or 0) > again then break end
            latest[#latest + 1] = entry[2][4]
            latest[#latest + 1] = entry[2][6]
        end
    end
    local entries = begin < top and entries_behind(stream, begin, most, most_bytes) or {}
    return {verdict, text(begin), epoch, text(top), entries, latest}
end

local answers = {}
for i = 1, (#KEYS - 1) / 2 do
    local done, found = pcall(answer, i)
    answers[i] = done and found or {type(found) == 'table' and found.err or tostring(found)}
end
return answers
