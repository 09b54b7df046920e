"""The conformance kit on etcd, alone and three together."""

from lockkit.testing.kit import kit
from lockkit.testing.shapes import SEMAPHORE
from support.harnesses.etcd import EtcdClusterHarness, EtcdHarness

test_etcd = kit(EtcdHarness)
test_cluster = kit(EtcdClusterHarness, [SEMAPHORE])
