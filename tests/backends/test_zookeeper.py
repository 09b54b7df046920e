"""The conformance kit on ZooKeeper: complete on one server; on an ensemble for one kind, unless whole."""

from lockkit.testing.kit import kit
from lockkit.testing.shapes import READERS
from support.harnesses.zookeeper import ZooKeeperEnsembleHarness, ZooKeeperHarness

test_zookeeper = kit(ZooKeeperHarness)
test_ensemble = kit(ZooKeeperEnsembleHarness, shapes=(READERS,))
