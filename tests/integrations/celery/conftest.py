"""Celery applications without a worker: tasks run in this process, eagerly or through Celery's own tracer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("celery")

import celery._state
import celery.app.builtins
from celery import Celery
from celery.app.trace import build_tracer

from lockkit.integrations.celery.clients import client_of, close_clients


@pytest.fixture
def app(tmp_path, monkeypatch):
    """An application with a broker and a result backend in memory, and locks in memory."""
    # Celery shares each application's tasks with those finalized later: here, those of other tests.
    own = {one for one in celery._state._on_app_finalizers if one.__module__ == celery.app.builtins.__name__}
    monkeypatch.setattr(celery._state, "_on_app_finalizers", own)
    app = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.lockkit_url = f"memory://{tmp_path.name}"
    app.conf.lockkit_state_dir = str(tmp_path)
    app.conf.task_default_queue = tmp_path.name
    yield app
    close_clients()


@pytest.fixture
def client(app):
    """The client of the application's tasks."""
    return client_of(app)


@pytest.fixture
def rival(client):
    """A holder beside the tasks: locks in its own thread, until the test ends or releases it."""
    leases = []

    def take(name):
        with ThreadPoolExecutor(1) as pool:
            leases.append(pool.submit(lambda: client.lock(name).acquire(timeout=10).detach()).result())
        return leases[-1]

    yield take
    for lease in leases:
        lease.release()


@pytest.fixture
def task_id(tmp_path):
    """The id of the message that is delivered; results in memory are kept for all tests of a process."""
    return f"id-{tmp_path.name}"


@pytest.fixture
def deliver(app, task_id):
    """Run a task as a worker does when a message arrives, and return what Celery makes of it."""

    def run(task, *args, headers=None, retries=0, task_id=task_id, **keywords):
        tracer = build_tracer(task.name, task, app=app, hostname="w1@box")
        request = {
            "id": task_id,
            "task": task.name,
            "retries": retries,
            "hostname": "w1@box",
            "is_eager": False,
            "delivery_info": {"exchange": "", "routing_key": app.conf.task_default_queue},
            **(headers or {}),
        }
        return tracer(task_id, args, keywords, request)

    return run


@pytest.fixture
def queued(app):
    """The messages that wait in the queue, oldest first."""

    def take():
        found = []
        with app.connection_for_read() as connection:
            queue = connection.SimpleQueue(app.conf.task_default_queue)
            while queue.qsize():
                message = queue.get(block=False)
                message.ack()
                found.append(message)
            queue.close()
        return found

    return take
