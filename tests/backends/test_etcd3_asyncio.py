"""The conformance kit through the asyncio face, on etcd over python-etcd3, which is called on threads."""

import importlib.util

import pytest

# Not importorskip: whoever imports gRPC before lockkit does decides that it cannot be used after a fork.
if importlib.util.find_spec("etcd3") is None:
    pytest.skip("python-etcd3 is not installed", allow_module_level=True)

from lockkit.testing.kit import kit
from lockkit.testing.shapes import MUTEX
from support.harnesses.etcd import Etcd3Harness

pytestmark = pytest.mark.full  # the store is the same as over HTTP, and `make test` plays the transport


class AsyncEtcd3Harness(Etcd3Harness):
    face = "asyncio"
    examples = (4, 12)


test_etcd_grpc_through_asyncio = kit(AsyncEtcd3Harness, shapes=(MUTEX,))
