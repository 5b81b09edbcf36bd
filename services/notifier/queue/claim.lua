-- Leases due tasks, the longest waiting endpoints first.
--
-- KEYS: meta, bodies, open, ready, tasks, fences. The queues are found in ready;
-- where a cluster that is moving the slot fails the call at one of them, those
-- before it are leased to nobody until their leases end.
-- ARGV: token, applied, now, lease, fence, limit, default room, prefix of
-- queues, rooms, then per room endpoint, room, not before.
local state = redis.call('HMGET', KEYS[1], 'owner', 'applied', 'depth')
local owner, applied = state[1] or '', state[2] or ''
if owner ~= ARGV[1] then return {owner ~= '' and 'owner' or 'applied', applied} end
if applied == '' or tonumber(applied) < tonumber(ARGV[2]) then return {'applied', applied} end

local now, limit, listed = tonumber(ARGV[3]), tonumber(ARGV[6]), tonumber(ARGV[9])
local room = {}
for i = 0, listed - 1 do
  local endpoint, from = ARGV[10 + 3 * i], tonumber(ARGV[12 + 3 * i])
  room[endpoint] = tonumber(ARGV[11 + 3 * i])
  if from > now then redis.call('ZADD', KEYS[4], 'XX', 'GT', ARGV[12 + 3 * i], endpoint) end
end

local tasks, count = {}, 0
for _, endpoint in ipairs(redis.call('ZRANGE', KEYS[4], '-inf', ARGV[3], 'BYSCORE', 'LIMIT', 0, limit + listed)) do
  local max = math.min(room[endpoint] or tonumber(ARGV[7]), limit - count)
  if max > 0 then
    local queue = ARGV[8] .. endpoint
    for _, alert in ipairs(redis.call('ZRANGE', queue, '-inf', ARGV[3], 'BYSCORE', 'LIMIT', 0, max)) do
      local field = endpoint .. '\n' .. alert
      redis.call('ZADD', queue, ARGV[4], alert)
      redis.call('HSET', KEYS[6], field, ARGV[5])
      tasks[#tasks + 1] = endpoint
      tasks[#tasks + 1] = alert
      tasks[#tasks + 1] = redis.call('HGET', KEYS[5], field) or ''
      tasks[#tasks + 1] = redis.call('HGET', KEYS[2], alert) or ''
      count = count + 1
    end
    local head = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
    if head[2] then redis.call('ZADD', KEYS[4], head[2], endpoint) else redis.call('ZREM', KEYS[4], endpoint) end
  end
end
local next = redis.call('ZRANGE', KEYS[4], '(' .. ARGV[3], '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
local oldest = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
return {'ok', next[2] or '0', oldest[2] or '0', state[3] or '0', tasks}
