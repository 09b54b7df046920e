"""The conformance kit through the asyncio face, on Redis, whose exchanges are performed on the event loop."""

from lockkit.testing.kit import kit
from lockkit.testing.shapes import WRITER
from support.harnesses.redis import RedisHarness


class AsyncRedisHarness(RedisHarness):
    face = "asyncio"
    examples = (15, 20)


test_redis_through_asyncio = kit(AsyncRedisHarness, shapes=(WRITER,))
