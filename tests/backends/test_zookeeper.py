"""The conformance kit on ZooKeeper: whole on one server; on an ensemble for one kind of lock, unless the run is a whole one."""

from lockkit.testing.kit import kit
from lockkit.testing.shapes import READERS
from support.harnesses.zookeeper import ZooKeeperEnsembleHarness, ZooKeeperHarness

test_zookeeper = kit(ZooKeeperHarness)
test_ensemble = kit(ZooKeeperEnsembleHarness, shapes=(READERS,))
