-- Makes a token the partition's owner and returns what a new owner needs.
-- KEYS: owner, meta, due, outbox. ARGV: token.
redis.call('SET', KEYS[1], ARGV[1])
local meta = redis.call('HMGET', KEYS[2], 'applied', 'seq', 'meta')
local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local head = redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', 1)
return {meta[1] or '', meta[2] or '0', meta[3] or '', due[2] or '', head[1] and head[1][1] or ''}
