"""The conformance kit on Redis: whole on one server; on the others for one kind of lock, unless the run is a whole one."""

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
