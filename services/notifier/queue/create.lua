-- The tasks of one batch: check first, write last.
--
-- KEYS: meta, bodies, left, open, ready, tasks, then each queue of the batch, so
-- that a cluster that is moving the slot refuses the whole call, not its middle.
-- ARGV: token, prev, next, prefix of queues, messages, then per message:
-- alert, body, written, number of tasks, and per task endpoint, due, state.
local now = redis.call('HMGET', KEYS[1], 'owner', 'applied')
local owner, applied = now[1] or '', now[2] or ''
if owner ~= ARGV[1] then return {owner ~= '' and 'owner' or 'applied', applied} end
if applied == ARGV[3] then return {'ok'} end
if applied ~= ARGV[2] then return {'applied', applied} end

local at, created = 6, 0
for _ = 1, tonumber(ARGV[5]) do
  local alert, body, written, count = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  at = at + 4
  local fresh = 0
  for _ = 1, count do
    local endpoint, due = ARGV[at], ARGV[at + 1]
    if redis.call('HSETNX', KEYS[6], endpoint .. '\n' .. alert, ARGV[at + 2]) == 1 then
      fresh = fresh + 1
      redis.call('ZADD', ARGV[4] .. endpoint, due, alert)
      redis.call('ZADD', KEYS[5], 'LT', due, endpoint)
    end
    at = at + 3
  end
  if fresh > 0 then
    redis.call('HSETNX', KEYS[2], alert, body)
    redis.call('HINCRBY', KEYS[3], alert, fresh)
    redis.call('ZADD', KEYS[4], 'NX', written, alert)
    created = created + fresh
  end
end
if created > 0 then redis.call('HINCRBY', KEYS[1], 'depth', created) end
redis.call('HSET', KEYS[1], 'applied', ARGV[3])
return {'ok'}
