"""The examples for RQ, Dramatiq and APScheduler, with real workers on a real Redis, and their locks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import lockkit
from support.servers.redis import RedisServer
from support.servers.started import started

pytest.importorskip("apscheduler")
dramatiq = pytest.importorskip("dramatiq")
dramatiq_redis = pytest.importorskip("dramatiq.brokers.redis")
redis_py = pytest.importorskip("redis")
rq = pytest.importorskip("rq")

EXAMPLES = Path(__file__).parents[2] / "docs/examples/workers"
BIN = Path(sys.executable).parent
PATIENCE = 40
"""Seconds for what a busy machine does in one or two."""


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < end, what() if callable(what) else what
        time.sleep(0.02)
    return answer


redis = started(RedisServer)


@pytest.fixture
def client(redis):
    with lockkit.connect(redis.url(db=1)) as client:
        yield client


@pytest.fixture
def holder(client):
    """Wait until an invoice is being billed; return the holder, which is killed if it outlives the test."""
    billed = []

    def wait(invoice):
        billed.append(invoice)
        return until("nobody holds", lambda: client.inspect(f"invoice:{invoice}").holders)[0]

    yield wait
    for invoice in billed:
        for one in client.inspect(f"invoice:{invoice}").holders:
            if one.process == "alive":
                os.kill(one.owner.pid, signal.SIGKILL)


@pytest.fixture
def environ(redis, tmp_path):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
    return clean | {
        "BROKER_URL": redis.url(db=2),
        "HOME": str(tmp_path),
        "LOCKKIT_CONFIG": "/dev/null",
        "LOCKKIT_TTL": "60",
        "LOCKKIT_URL": redis.url(db=1),
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES), str(tmp_path)]),
    }


@pytest.fixture
def start(environ, tmp_path):
    """Start a program in a process group of its own, with its output in a file."""
    running = []

    def start(*words, **more):
        log = tmp_path / f"log-{len(running)}"
        with log.open("w") as file:
            program = subprocess.Popen(
                words, cwd=tmp_path, env=environ | more, stdout=file, stderr=file, start_new_session=True
            )
        program.text = log.read_text
        running.append(program)
        return program

    yield start
    for program in running:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


# -- RQ


@pytest.fixture
def connection(redis):
    connection = redis_py.Redis.from_url(redis.url(db=0))
    connection.flushdb()
    yield connection
    connection.close()


@pytest.fixture
def queue(connection):
    return rq.Queue(connection=connection)


@pytest.fixture
def rq_worker(start, redis, queue):
    def worker(**more):
        before = rq.Worker.count(connection=queue.connection)
        worker = start(str(BIN / "rq"), "worker", "--with-scheduler", "-u", redis.url(db=0), **more)
        until(worker.text, lambda: rq.Worker.count(connection=queue.connection) > before)
        return worker

    return worker


def status(job):
    return job.get_status(refresh=True).value


def ended(job, how="finished"):
    until(lambda: f"{status(job)}: {job.latest_result()}", lambda: status(job) == how)
    return job.latest_result()


def test_rq_a_busy_job_is_put_back_and_runs_once_the_other_is_done(queue, rq_worker, client):
    rq_worker()
    with client.lock("invoice:7").acquire():
        job = queue.enqueue("rq_jobs.bill", 7)
        until("not put back", lambda: status(job) == "scheduled")

    assert ended(job).return_value.startswith("billed 7, fence ")


def test_rq_a_job_whose_horse_is_killed_frees_its_lock_within_the_ttl_and_runs_again(
    queue, rq_worker, client, holder
):
    rq_worker(LOCKKIT_TTL="2")
    job = queue.enqueue("rq_jobs.bill", 8, 30, retry=rq.Retry(max=1))
    killed = holder(8)
    os.kill(killed.owner.pid, signal.SIGKILL)

    again = until(
        "not run again",
        lambda: [one for one in client.inspect("invoice:8").holders if one.fence > killed.fence],
    )
    os.kill(again[0].owner.pid, signal.SIGKILL)

    ended(job, "failed")


def test_rq_a_job_that_takes_too_long_has_released_its_lock(queue, rq_worker, client):
    rq_worker()
    job = queue.enqueue("rq_jobs.bill", 9, 60, job_timeout=1)

    result = ended(job, "failed")

    assert "JobTimeoutException" in result.exc_string
    assert client.inspect("invoice:9").claims == ()


def test_rq_a_horse_whose_worker_was_killed_keeps_out_the_second_run(queue, rq_worker, client, holder):
    worker = rq_worker()
    job = queue.enqueue("rq_jobs.bill", 10, 6, retry=rq.Retry(max=1))
    horse = holder(10)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    # As another worker does, a minute after the last heartbeat.
    queue.started_job_registry.cleanup(time.time() + 3600)
    assert status(job) == "queued"
    second = rq_worker()
    until(second.text, lambda: status(job) == "scheduled")
    assert client.inspect("invoice:10").holders[0].claim_id == horse.claim_id

    def fences():
        return {
            int(one.return_value.rpartition(" ")[2])
            for one in job.results()
            if isinstance(one.return_value, str)
        }

    until(second.text, lambda: len(fences()) == 2)
    assert min(fences()) == horse.fence


def test_rq_a_job_may_return_what_says_who_has_the_lock(queue, rq_worker, client, tmp_path):
    (tmp_path / "skipping.py").write_text(
        "import lockkit\nclient = lockkit.connect()\n"
        "@client.locked('invoice:{invoice}', timeout=0, on_busy='skip')\ndef bill(invoice): pass\n"
    )
    rq_worker()
    with client.lock("invoice:11").acquire() as lease:
        skipped = ended(queue.enqueue("skipping.bill", 11)).return_value

    assert not skipped
    assert skipped.holder.claim_id == lease.claim_id


@pytest.mark.parametrize("kind", ["SimpleWorker", "SpawnWorker"])
def test_rq_another_kind_of_worker_releases_what_its_jobs_held(queue, start, redis, client, kind):
    jobs = [queue.enqueue("rq_jobs.bill", invoice) for invoice in (12, 12)]

    worker = start(str(BIN / "rq"), "worker", "--burst", "-w", f"rq.worker.{kind}", "-u", redis.url(db=0))

    assert worker.wait(PATIENCE) == 0, worker.text()
    fences = [int(ended(job).return_value.rpartition(" ")[2]) for job in jobs]
    assert fences[0] < fences[1]
    assert client.inspect("invoice:12").claims == ()


# -- Dramatiq

TASKS = """
import dramatiq
from dramatiq_tasks import bill
broker = dramatiq.get_broker()
broker.heartbeat_timeout = 2_000
broker.maintenance_chance = 1_000_000
"""


@pytest.fixture
def send(redis):
    """Send a message to an actor."""
    broker = dramatiq_redis.RedisBroker(url=redis.url(db=2))
    broker.client.flushdb()

    def send(actor, *args, **options):
        broker.declare_queue("default")
        message = dramatiq.Message(
            queue_name="default", actor_name=actor, args=args, kwargs={}, options=options
        )
        return broker.enqueue(message)

    yield send
    broker.client.close()


@pytest.fixture
def dramatiq_worker(start, tmp_path):
    (tmp_path / "tasks.py").write_text(TASKS)
    return lambda **more: start(str(BIN / "dramatiq"), "tasks", "--processes", "1", "--threads", "2", **more)


def test_dramatiq_a_busy_message_is_put_back_and_runs_once_the_other_is_done(send, dramatiq_worker, client):
    worker = dramatiq_worker()
    with client.lock("invoice:207").acquire():
        send("bill", 207)
        until(worker.text, lambda: "Retrying message" in worker.text())
        assert "billed" not in worker.text()

    until(worker.text, lambda: "billed 207, fence" in worker.text())


def test_dramatiq_a_body_that_a_time_limit_ends_has_released_its_lock(send, dramatiq_worker, client, holder):
    worker = dramatiq_worker()
    send("bill", 208, 3, time_limit=500, max_retries=0)
    holder(208)
    until(
        worker.text, lambda: "TimeLimitExceeded" in worker.text() and not client.inspect("invoice:208").claims
    )
    assert "billed 208" not in worker.text()


def test_dramatiq_a_message_of_a_killed_process_runs_again_after_the_ttl(
    send, dramatiq_worker, client, holder
):
    worker = dramatiq_worker(LOCKKIT_TTL="2")
    send("bill", 210, 30)
    killed = holder(210)
    os.kill(killed.owner.pid, signal.SIGKILL)
    until(worker.text, lambda: worker.poll() is not None)  # the others end, too
    dramatiq_worker()

    again = until(
        "not run again",
        lambda: [one for one in client.inspect("invoice:210").holders if one.fence > killed.fence],
    )

    assert again[0].owner.pid != killed.owner.pid


def test_dramatiq_a_worker_that_is_ended_finishes_and_releases(send, dramatiq_worker, client, holder):
    worker = dramatiq_worker()
    send("bill", 211, 1)
    holder(211)

    # Not to the group: the main process passes it on, and a second one cuts the tasks short.
    os.kill(worker.pid, signal.SIGTERM)

    assert worker.wait(PATIENCE) == 0
    assert "billed 211" in worker.text()
    assert client.inspect("invoice:211").claims == ()


# -- APScheduler

HOST = """
import sys
from datetime import datetime
import apscheduler_jobs as jobs
jobs.client.names()
(job,) = jobs.scheduler.get_jobs()
job.reschedule("date", run_date=datetime.fromisoformat(sys.argv[1]))
stop = datetime.fromisoformat(sys.argv[2])
jobs.scheduler.add_job(jobs.scheduler.shutdown, "date", run_date=stop, kwargs={"wait": False})
print("ready", flush=True)
jobs.scheduler.start()
"""


def test_apscheduler_one_of_several_hosts_runs_the_job_although_their_clocks_differ(start, client, tmp_path):
    (tmp_path / "host.py").write_text(HOST)
    due = datetime.now(UTC) + timedelta(seconds=6)
    hosts = [
        start(
            sys.executable,
            "host.py",
            (due + timedelta(seconds=behind)).isoformat(),
            (due + timedelta(seconds=behind + 1)).isoformat(),
        )
        for behind in (0, 0.05, 0.3)
    ]
    for host in hosts:
        until(host.text, lambda host=host: host.poll() is not None)

    texts = [host.text() for host in hosts]
    assert sum(text.count("reported") for text in texts) == 1, texts
