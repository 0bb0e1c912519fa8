-- Store KEYS[i] = ARGV[i + 1], each for ARGV[1] seconds. One command for many keys: written
-- one by one, packing them costs the client five times the CPU.
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1])
end
