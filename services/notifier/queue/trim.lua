-- Drops the outbox up to and with an entry that is still there.
--
-- KEYS: meta, outbox. ARGV: token, id, the id behind it.
local now = redis.call('HMGET', KEYS[1], 'owner', 'applied')
if (now[1] or '') ~= ARGV[1] then return {now[1] and 'owner' or 'applied', now[2] or ''} end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then return {'stale'} end
redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[3])
return {'ok'}
