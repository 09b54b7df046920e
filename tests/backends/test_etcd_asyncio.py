"""The conformance kit through the asyncio face, on etcd, whose exchanges are performed on the event loop."""

from lockkit.testing.kit import kit
from lockkit.testing.shapes import MUTEX
from support.harnesses.etcd import EtcdHarness


class AsyncEtcdHarness(EtcdHarness):
    face = "asyncio"
    examples = (4, 12)


test_etcd_through_asyncio = kit(AsyncEtcdHarness, shapes=(MUTEX,))
