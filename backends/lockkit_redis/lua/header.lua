-- The beginning of every script of a queue.
--
-- KEYS: q  ZSET of tokens by fence (the order of arrival)    d  ZSET of tokens by deadline (ms since the epoch)
--       c  HASH: token -> state, token:owner, token:note; "@" -> the last time seen, "@crowd" -> somebody holds outside
--       f  the last fence given                              g  ZSET of tombstones: token -> until when

local q, d, c, f, g = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local call, encode, decode, format, match = redis.call, cjson.encode, cjson.decode, string.format, string.match
local GRACE, TOMBSTONE, KEPT, SLACK, CHUNK, READER = 6000, 60000, 86400000, 60000, 64, 1
local clock = call('TIME')
local us = clock[1] * 1000000 + clock[2]
local now = math.floor(us / 1000)
