"""The conformance kit on etcd by way of python-etcd3: for one kind of lock, unless the run is a whole one."""

import importlib.util

import pytest

# Not importorskip: whoever imports gRPC before lockkit does decides that it cannot be used after a fork.
if importlib.util.find_spec("etcd3") is None:
    pytest.skip("python-etcd3 is not installed", allow_module_level=True)

from lockkit.testing.kit import kit
from lockkit.testing.shapes import SEMAPHORE
from support.harnesses.etcd import Etcd3Harness

pytestmark = pytest.mark.full  # the store is the same as over HTTP, and `make test` plays the transport

test_etcd_grpc = kit(Etcd3Harness, [SEMAPHORE])
