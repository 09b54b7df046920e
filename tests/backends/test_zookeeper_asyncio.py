"""The conformance kit through the asyncio face, on ZooKeeper, which is called on threads."""

from lockkit.testing.kit import kit
from lockkit.testing.shapes import MUTEX
from support.harnesses.zookeeper import ZooKeeperHarness


class AsyncZooKeeperHarness(ZooKeeperHarness):
    face = "asyncio"
    examples = (4, 12)


test_zookeeper_through_asyncio = kit(AsyncZooKeeperHarness, shapes=(MUTEX,))
