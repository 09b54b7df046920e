"""The conformance kit on etcd, alone and three together."""

from lockkit.testing.harnesses.etcd import EtcdClusterHarness, EtcdHarness
from lockkit.testing.kit import kit
from lockkit.testing.shapes import SEMAPHORE

test_etcd = kit(EtcdHarness)
test_cluster = kit(EtcdClusterHarness, [SEMAPHORE])
