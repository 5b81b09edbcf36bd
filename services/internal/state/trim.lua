-- Removes what was published. The token is checked because sequence numbers
-- begin anew in a partition that lost everything.
-- KEYS: owner, meta, outbox. ARGV: token, last sequence to remove.
local owner = redis.call('GET', KEYS[1]) or ''
if owner ~= ARGV[1] then
  return {'owner', redis.call('HGET', KEYS[2], 'applied') or '', owner ~= '' and 1 or 0}
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('XTRIM', KEYS[3], 'MINID', string.format('%.0f-0', tonumber(ARGV[2]) + 1))
end
return {'ok'}
