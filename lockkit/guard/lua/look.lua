-- The record and the value. KEYS: the record, the value.
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}
