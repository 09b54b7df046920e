"""The conformance kit on Redis."""

from lockkit.testing.harnesses.redis import RedisHarness
from lockkit.testing.kit import kit

test_redis = kit(RedisHarness)
