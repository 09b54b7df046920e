"""Fixtures for real Celery workers as processes: a broker, a lock store, a stage for tasks and tests."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
from collections.abc import Mapping

import pytest

if importlib.util.find_spec("celery") is None or importlib.util.find_spec("redis") is None:
    collect_ignore_glob = ["test_*.py"]


class Rig:
    """The servers of a session, and the workers of a test or module.

    Attributes:
        stage: Where tasks and tests meet.
        environ: The environment of the workers.
    """

    def __init__(self, broker, store, folder, stack):
        from support.celery.stage import Stage

        self.broker, self.store, self.folder = broker, store, folder
        self.stage = Stage(broker.url(db=1))
        self.environ = {
            "BROKER_URL": broker.url(db=0),
            "STAGE_URL": broker.url(db=1),
            "LOCKKIT_URL": store.url(),
            "LOCKKIT_STATE_DIR": str(folder / "state"),
        }
        self._stack = stack

    def worker(
        self, app="support.celery.plain", *, environ: Mapping[str, str] | None = None, ready=True, **options
    ):
        """Start a worker, which is killed at the end of the fixture's scope."""
        from support.celery.worker import Worker

        made = self._stack.enter_context(
            Worker(app, self.folder, {**self.environ, **(environ or {})}, **options)
        )
        return made.until_ready() if ready else made

    def app(self, module="support.celery.plain"):
        """The workers' application, imported in the test's own process, to send tasks and ask for results."""
        app = importlib.import_module(module).app
        assert app.conf.broker_url == self.environ["BROKER_URL"], "imported before, for another broker"
        self._stack.callback(_hang_up, app)
        return app

    def sender(self):
        """An application that sends tasks by name; the workers' may be imported for another broker."""
        from celery import Celery

        app = Celery("sender", broker=self.broker.url(), backend=self.broker.url(), set_as_current=False)
        self._stack.callback(_hang_up, app)
        return app

    def released(self, lock):
        """The reasons for which holds of a lock ended, from the event journal."""
        file = self.folder / "state" / "journal" / "events.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        rows = [json.loads(line) for line in lines if line.strip()]
        return [
            row.get("reason")
            for row in rows
            if row.get("kind") in ("released", "evicted") and row.get("name") == lock
        ]

    def client(self, **settings):
        """A client of the lock store for the test."""
        import lockkit

        return self._stack.enter_context(
            contextlib.closing(lockkit.connect(self.environ["LOCKKIT_URL"], **settings))
        )


def _hang_up(app):
    """Leave nothing that a result, collected after the broker has ended, would tell the broker."""
    consumer = app.backend.result_consumer
    consumer.stop()
    consumer._pubsub = None
    consumer.subscribed_to.clear()
    app.close()


@pytest.fixture(scope="session")
def broker():
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def lock_store():
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def make_rig(broker, lock_store, tmp_path_factory):
    """Make a rig whose workers live as long as the module: queues and locks are told apart by their names."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        def make():
            made = Rig(broker, lock_store, tmp_path_factory.mktemp("celery"), stack)
            for name, value in made.environ.items():  # before a test imports an application, which reads them
                patch.setenv(name, value)
            return made

        yield make


@pytest.fixture(scope="module")
def rig(make_rig):
    """The rig of a module, on an empty broker and an empty store."""
    made = make_rig()
    made.broker.cli("FLUSHALL")
    made.store.cli("FLUSHALL")
    return made
