-- Ends a lease whose fence is current.
--
-- KEYS: meta, bodies, left, open, ready, tasks, fences, outbox, queue.
-- ARGV: applied, endpoint, alert, fence, due (0: done), state is given (0, 1),
-- state, record is given (0, 1), record, nonce.
local applied = redis.call('HGET', KEYS[1], 'applied') or ''
if applied == '' or tonumber(applied) < tonumber(ARGV[1]) then return {'applied', applied} end
local endpoint, alert = ARGV[2], ARGV[3]
local field, queue = endpoint .. '\n' .. alert, KEYS[9]
if redis.call('HGET', KEYS[7], field) ~= ARGV[4] then return {'stale'} end

if ARGV[8] == '1' then
  local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  redis.call('XADD', KEYS[8], string.format('%.0f', seq) .. '-' .. ARGV[10], 'a', alert, 'r', ARGV[9])
end
redis.call('HDEL', KEYS[7], field)
if ARGV[5] == '0' then
  redis.call('ZREM', queue, alert)
  redis.call('HDEL', KEYS[6], field)
  redis.call('HINCRBY', KEYS[1], 'depth', -1)
  if redis.call('HINCRBY', KEYS[3], alert, -1) <= 0 then
    redis.call('HDEL', KEYS[3], alert)
    redis.call('HDEL', KEYS[2], alert)
    redis.call('ZREM', KEYS[4], alert)
  end
else
  redis.call('ZADD', queue, ARGV[5], alert)
  if ARGV[6] == '1' then redis.call('HSET', KEYS[6], field, ARGV[7]) end
end
local head = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
if head[2] then redis.call('ZADD', KEYS[5], head[2], endpoint) else redis.call('ZREM', KEYS[5], endpoint) end
return {'ok'}
