"""The 28 scenarios of the old GPU lock, and the seven that it planned, on etcd by way of python-etcd3."""

import pytest

from scenarios.test_the_28 import *  # noqa: F403 - the scenarios and their fixtures

STORES = ("etcd3",)
pytestmark = pytest.mark.full  # the store is the same as over HTTP, and `make test` plays the transport
