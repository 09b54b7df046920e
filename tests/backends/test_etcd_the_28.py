"""The 28 scenarios of the old GPU lock, and the seven that it planned, on etcd."""

from scenarios.test_the_28 import *  # noqa: F403 - the scenarios and their fixtures

STORES = ("etcd",)
