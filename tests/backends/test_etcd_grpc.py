"""The conformance kit on etcd by way of python-etcd3."""

import importlib.util

import pytest

if importlib.util.find_spec("etcd3") is None:
    pytest.skip("python-etcd3 is not installed", allow_module_level=True)

from lockkit.testing.harnesses.etcd import EtcdHarness
from lockkit.testing.kit import kit
from lockkit.testing.shapes import SEMAPHORE


class EtcdGrpcHarness(EtcdHarness):
    scheme = "etcd+grpc"


test_etcd_grpc = kit(EtcdGrpcHarness, [SEMAPHORE])
