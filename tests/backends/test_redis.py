"""The conformance kit on Redis: complete on one server; on others for one kind of lock, unless whole."""

from lockkit.testing.kit import kit
from lockkit.testing.processes import installed
from lockkit.testing.shapes import READERS, SEMAPHORE, WRITER
from support.harnesses.redis import (
    RedisClusterHarness,
    RedisHarness,
    RedisSentinelHarness,
    ValkeyHarness,
)

test_redis = kit(RedisHarness)
test_cluster = kit(RedisClusterHarness, shapes=(SEMAPHORE,))
test_sentinels = kit(RedisSentinelHarness, shapes=(READERS,))
if installed("valkey-server"):
    test_valkey = kit(ValkeyHarness, shapes=(WRITER,))
