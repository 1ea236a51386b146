-- Appends a batch of a publisher, all of it or nothing.
--
-- KEYS  the publisher's hash, the hash of counters, the server's facts; then of each topic: its facts, its stream
-- ARGV  publisher, number of the batch's first publication, of its last, of the oldest that the publisher still has,
--       a name for new epochs, milliseconds after which an unused topic is forgotten, and the same of a publisher,
--       what names of channels begin with; then of each topic: "partition, how many, number of the last one,
--       history_size, history_ttl in milliseconds", and the publications
-- Answers {what, generation, number stored before, "epoch offset epoch offset ..." of the last one in each topic}.
--
-- Everything is read first: a key of another type, or a server that may not write, ends the script before it has
-- written. The first write is one that a full server refuses; after it nothing does. What is told comes last, so
-- whoever hears it can read it.

local BOUNDARIES = 16
local HEAD = 8

local publisher, first, last, base = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local fresh, idle, publisher_idle, channel = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local topics = (#KEYS - 3) / 2

local generation = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
local known = redis.call('HMGET', KEYS[1], 'n', 'a')
local stored = tonumber(known[1] or '0')
if last <= stored then
    return {'done', generation, stored, last == stored and known[2] or ''}
end
if first ~= stored + 1 and not (stored < base and first == base) then
    return {'hole', generation, stored, ''}
end

local line = redis.call('HGET', KEYS[3], 'line')
local facts, wanted, sizes = {}, {}, {}
for i = 1, topics do
    facts[i] = redis.call('HMGET', KEYS[2 + 2 * i], 'e', 'g', 's', 'c', 't', 'f')
    sizes[i] = {string.match(ARGV[HEAD + 2 * i - 1], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')}
    wanted[i] = sizes[i][1]
end
local counters = redis.call('HMGET', KEYS[2], unpack(wanted))
local counted = {}
for i = 1, topics do
    counted[wanted[i]] = tonumber(counters[i] or '0')
end

local function add(stream, top, many, most, number, data)
    return redis.pcall('XADD', stream, 'MINID', '=', text(math.max(top - most + 1, 0)), text(top) .. '-0',
        'n', many, 'p', publisher, 'l', number, 't', text(now), 'd', data)
end

local heads, answer = {}, {}
for i = 1, topics do
    local meta, stream, data = KEYS[2 + 2 * i], KEYS[3 + 2 * i], ARGV[HEAD + 2 * i]
    local many, number, most, ttl = tonumber(sizes[i][2]), sizes[i][3], tonumber(sizes[i][4]), tonumber(sizes[i][5])
    local epoch, top, chain = facts[i][1], tonumber(facts[i][3] or '0'), facts[i][4] or ''
    local unknown = not epoch
    if unknown then
        epoch, top, chain = fresh .. '.' .. i, 0, ''
        if line then
            -- Whoever has asked for it when there was nothing has a position all the same: see read.lua.
            local slot = math.floor(now / (idle / 2))
            chain = text(slot - 1) .. '@' .. line .. ':0,' .. text(slot) .. '@' .. line .. ':0'
        end
    elseif facts[i][2] ~= generation then
        -- What the server has is a beginning of what there was; how much was lost behind it nobody knows.
        chain = chain .. (chain == '' and '' or ',') .. epoch .. ':' .. text(top)
        local _, count = string.gsub(chain, ',', '')
        if count >= BOUNDARIES then chain = string.gsub(chain, '^[^,]*,', '', 1) end
        epoch = fresh .. '.' .. i
    end
    top = top + many
    -- An entry goes as a whole; what of it is kept is a matter of the first offset.
    local first = math.max(tonumber(facts[i][6] or '1'), top - most + 1)
    redis.call('HSET', meta, 'e', epoch, 'g', generation, 's', text(top), 'c', chain, 't', ttl, 'f', text(first))
    if unknown then redis.call('DEL', stream) end
    if add(stream, top, many, most, number, data).err then
        -- The stream is ahead of the facts, or is none: another line.
        epoch, top = fresh .. '.' .. i .. 'x', many
        redis.call('HSET', meta, 'e', epoch, 's', text(top), 'c', '', 'f', text(math.max(1, top - most + 1)))
        redis.call('DEL', stream)
        add(stream, top, many, most, number, data)
    end
    if ttl > 0 then
        forget(stream, ttl)
        redis.call('PEXPIRE', stream, ttl)
        redis.call('PEXPIRE', meta, ttl + idle)
    elseif unknown or facts[i][5] ~= '0' then
        redis.call('PERSIST', stream)
        redis.call('PERSIST', meta)
    end
    local counter = counted[wanted[i]] + 1
    counted[wanted[i]] = counter
    heads[i] = table.concat({generation, text(counter), epoch, text(top), many, text(now)}, ' ') .. '\n'
    answer[2 * i - 1], answer[2 * i] = epoch, text(top)
end

answer = table.concat(answer, ' ')
redis.call('HSET', KEYS[1], 'n', text(last), 'a', answer)
redis.call('PEXPIRE', KEYS[1], publisher_idle)
local changed = {}
for partition, counter in pairs(counted) do
    changed[#changed + 1] = partition
    changed[#changed + 1] = text(counter)
end
redis.call('HSET', KEYS[2], unpack(changed))
for i = 1, topics do
    redis.call('PUBLISH', channel .. wanted[i], heads[i] .. ARGV[HEAD + 2 * i])
end
return {'done', generation, stored, answer}
