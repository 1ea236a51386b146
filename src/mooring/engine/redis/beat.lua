-- A heartbeat: says that the node lives, and tells it what the server has.
--
-- KEYS  the publisher's hash, the hash of counters
-- ARGV  the node's own channel, the number of the heartbeat, milliseconds after which an unused publisher is forgotten
-- Answers {role, generation, number of the publisher's last publication, {partition, counter, ...}}.
--
-- What is published before it, the node hears before it: so when it hears the heartbeat, it has what the counters say,
-- or has missed it.

local info = redis.call('INFO', 'replication')
local role, generation = string.match(info, 'role:(%w+)'), string.match(info, 'master_replid:(%w+)')
if role ~= 'master' then
    return {role, generation, '0', {}}
end
local stored = redis.call('HGET', KEYS[1], 'n')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local counters = redis.call('HGETALL', KEYS[2])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return {role, generation, stored or '0', counters}
