-- One atomic step of a partition: check first, write last, so that a refused
-- or failing call leaves everything as it was. All data comes in ARGV.
--
-- KEYS: owner, meta, outbox, due, then one key per group.
-- ARGV: token, prev, next, meta, entries, first sequence, due pairs, due
-- removals, counts, then entries (offset, body), due pairs (score, member),
-- removals (member), and per group the fields that are set (name, value) and
-- removed (name). Counts has two numbers of two bytes for each group: how many
-- fields are set (65535: drop the group), and how many are removed.
local owner = redis.call('GET', KEYS[1]) or ''
local now = redis.call('HMGET', KEYS[2], 'applied', 'seq')
local applied, seq = now[1] or '', tonumber(now[2] or '0')
if owner ~= ARGV[1] then return {'owner', applied, owner ~= '' and 1 or 0} end
if applied == ARGV[3] then return {'ok'} end
if applied ~= ARGV[2] then return {'applied', applied, 0} end
local entries, first = tonumber(ARGV[5]), tonumber(ARGV[6])
if entries > 0 and first ~= seq + 1 then return {'sequence', applied, 0} end

local slice = 1000 -- arguments of one call; Lua's stack holds a few thousand
local at = 10
local function call(name, key, count)
  local last = at + count
  while at < last do
    local to = math.min(at + slice, last) - 1
    redis.call(name, key, unpack(ARGV, at, to))
    at = to + 1
  end
end

for i = 0, entries - 1 do
  redis.call('XADD', KEYS[3], string.format('%.0f-0', first + i), 'o', ARGV[at], 'b', ARGV[at + 1])
  at = at + 2
end
call('ZADD', KEYS[4], 2 * tonumber(ARGV[7]))
call('ZREM', KEYS[4], tonumber(ARGV[8]))
local counts = ARGV[9]
for i = 5, #KEYS do
  local a, b, c, d = string.byte(counts, 4 * i - 19, 4 * i - 16)
  local set, del = 256 * a + b, 256 * c + d
  if set == 65535 then
    redis.call('UNLINK', KEYS[i])
  else
    if set == 3 then -- as call does, without its loop: what most groups change
      redis.call('HSET', KEYS[i], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
      at = at + 6
    else
      call('HSET', KEYS[i], 2 * set)
    end
    if del > 0 then call('HDEL', KEYS[i], del) end
  end
end
redis.call('HSET', KEYS[2], 'applied', ARGV[3], 'meta', ARGV[4], 'seq', string.format('%.0f', entries > 0 and first + entries - 1 or seq))
return {'ok'}
