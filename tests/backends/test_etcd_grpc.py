"""The conformance kit on etcd by way of python-etcd3."""

import pytest

pytest.importorskip("etcd3")

from lockkit.testing.harnesses.etcd import EtcdHarness
from lockkit.testing.kit import kit
from lockkit.testing.shapes import SEMAPHORE


class EtcdGrpcHarness(EtcdHarness):
    scheme = "etcd+grpc"


test_etcd_grpc = kit(EtcdGrpcHarness, [SEMAPHORE])
