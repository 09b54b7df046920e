"""Behaviour that the kit cannot see: transactions, connections, restarts, rights, and error messages."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import threading
import time
from pathlib import Path

import lockkit_postgres
import pytest
from psycopg.pq import PGconn

import lockkit
from lockkit.errors import BackendUnavailable, ConfigError, IncompatibleLayout, PermissionDenied
from lockkit.store.spi import ABSENT, RELEASED, Granted, Lapsed, Queued, Refused, Unknown
from lockkit.testing.claims import BUDGET, claim, queue, renew, settled, states, take
from lockkit.testing.processes import until
from lockkit.testing.troubles import IN_TIME, both_ways, trouble
from server import programs

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.fixture
def transaction(server, database):
    """A transaction of a stranger that locks the queue of "a"; ended by calling it."""
    conn = PGconn.connect(server.conninfo(database))

    def lock():
        conn.exec_(b"BEGIN")
        conn.exec_(b"INSERT INTO lockkit.queue VALUES ('default', 'a') ON CONFLICT DO NOTHING")
        conn.exec_(b"SELECT FROM lockkit.queue WHERE name = 'a' FOR UPDATE")
        return lambda: conn.exec_(b"COMMIT")

    yield lock
    conn.finish()


def waiters(server, database):
    """How many statements of the store wait for a lock."""
    (row,) = server.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'", database
    )
    return int(row[0])


def connections(server, database):
    """How many connections stores have."""
    (row,) = server.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'lockkit:%'",
        database,
    )
    return int(row[0])


# -- copies of requests that are still under way


def test_an_acquire_that_was_given_up_on_the_way_leaves_nothing_whoever_of_the_two_comes_first(
    store, server, database, transaction
):
    late, release = claim(), transaction()
    with pytest.raises(Unknown):
        store.acquire(late, True, 0.2)
    until(lambda: waiters(server, database) == 1, "the server goes on with it although nobody waits for it")
    given_up = threading.Thread(target=lambda: answers.append(store.abandon(late, BUDGET)))
    answers = []
    given_up.start()
    until(lambda: waiters(server, database) == 2, "the abandon waits, too")

    release()
    given_up.join()
    until(lambda: waiters(server, database) == 0, "both are done")

    assert answers in ([RELEASED], [ABSENT])
    assert states(store) == []


def test_a_copy_that_comes_after_the_abandon_finds_its_tombstone(store):
    late = claim()

    assert store.abandon(late, BUDGET) == ABSENT

    assert store.acquire(late, True, BUDGET) == Lapsed("late")
    assert states(store) == []


def test_so_does_one_that_comes_after_its_replay_was_granted_and_lapsed(store, server, database, transaction):
    late, release = claim(ttl=0.2), transaction()
    with pytest.raises(Unknown):
        store.acquire(late, True, 0.1)
    until(lambda: waiters(server, database) == 1, "it is under way")
    server.sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = $1 AND wait_event_type = 'Lock'",
        database,
    )
    release()
    assert isinstance(store.acquire(late, True, BUDGET), Granted)

    until(lambda: states(store) == [], "it lapses")
    other, _ = take(store)  # which settles
    store.release(other, BUDGET)

    assert store.acquire(late, True, BUDGET) == Lapsed("late")


def test_an_acquire_that_was_under_way_for_half_a_minute_grants_nothing(store, monkeypatch):
    monkeypatch.setattr(store, "_ahead", store._ahead - 31.0)

    assert store.acquire(claim(), True, BUDGET) == Lapsed("late")

    assert isinstance(store.acquire(claim(), True, BUDGET), Granted), (
        "by then it knows the server's clock again"
    )


def test_tombstones_go_when_they_have_served(store, server, database):
    store.abandon(claim("b"), BUDGET)
    server.sql("UPDATE lockkit.gone SET until = now() - interval '1 s'", database=database)

    store.abandon(claim("c"), BUDGET)

    assert server.sql("SELECT name FROM lockkit.gone", database=database) == [["c"]]


# -- transactions


def test_a_function_refuses_an_isolation_under_which_it_would_read_too_early(server, store, database):
    conn = PGconn.connect(server.conninfo(database))
    conn.exec_(b"BEGIN ISOLATION LEVEL REPEATABLE READ")
    result = conn.exec_(b"SELECT lockkit.inspect('default', 'a'), lockkit.evict('default', 'a', 'x', true)")
    conn.finish()

    assert b"READ COMMITTED" in result.error_message


def test_defaults_of_a_role_do_not_make_it_unsafe(server, opened, url, database):
    server.sql(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'")
    server.sql(f"ALTER DATABASE {database} SET synchronous_commit = 'off'")
    store = opened(url)

    held, fence = take(store)

    assert renew(store, held, fence).state == "HELD"
    assert store._pool.ask(BUDGET, "SELECT to_jsonb(current_setting('synchronous_commit'))")[0] == "on"


def test_a_call_that_waits_for_its_turn_obeys_its_budget(store, transaction):
    release = transaction()

    began = time.monotonic()
    with pytest.raises(Unknown):
        store.acquire(claim(), True, 0.2)

    assert time.monotonic() - began < 0.4
    release()


def test_another_lock_does_not_notice(store, transaction):
    transaction()

    assert isinstance(store.acquire(claim("b"), True, BUDGET), Granted)


def test_many_processes_never_meet(url, tmp_path):
    context = multiprocessing.get_context("spawn")
    fences = context.Queue()
    workers = [
        context.Process(target=_take_turns, args=(url, str(tmp_path / "inside"), fences)) for _ in range(4)
    ]
    lockkit.connect(url).close()
    for worker in workers:
        worker.start()
    found = [fences.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()

    assert sorted(fence for each in found for fence in each) == list(range(1, 101))
    assert all(each == sorted(each) for each in found)


def _take_turns(url, inside, fences):
    taken = []
    with lockkit.connect(url) as client:
        for _ in range(25):
            with client.lock("hot").acquire(60.0) as lease:
                taken.append(lease.fence)
                Path(inside).touch(exist_ok=False)  # fails if somebody else is in here
                Path(inside).unlink()
    fences.put(taken)


# -- connections


def test_connections_are_used_again(store, server, database):
    for _ in range(20):
        store.release(take(store)[0], BUDGET)

    assert connections(server, database) == 1


def test_a_connection_that_was_closed_meanwhile_costs_nothing(store, server, database):
    held, fence = take(store)
    server.sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", database)

    assert renew(store, held, fence).state == "HELD"


def test_an_emergency_release_has_a_connection_of_its_own(store, server, database):
    held, _ = take(store)
    connection = store._pool.take(time.monotonic() + BUDGET)  # the only one is in use by somebody who hangs

    assert store.emergency_release(held, BUDGET) == RELEASED
    assert states(store) == []
    connection.close()


def test_a_waiter_is_woken_over_a_new_connection_if_the_old_one_broke(store, server, database):
    held, _ = take(store)
    waiting = queue(store)
    woken = threading.Event()
    watch = store.watch("a", ("",), woken.set, waiting)
    listening = "FROM pg_stat_activity WHERE datname = $1 AND state = 'idle' AND query LIKE '%waiting($1%'"
    until(lambda: server.sql(f"SELECT pid {listening}", database), "it listens")
    server.sql(f"SELECT pg_terminate_backend(pid, 5000) {listening}", database)

    settled(lambda: store.release(held, BUDGET))

    assert woken.wait(5.0)
    assert isinstance(store.acquire(waiting, False, BUDGET), Granted)
    watch.close()


def test_what_happened_before_the_watch_began_is_not_missed(store):
    held, _ = take(store)
    waiting = queue(store)
    store.release(held, BUDGET)
    woken = threading.Event()

    watch = store.watch("a", ("",), woken.set, waiting)

    assert woken.wait(2.0)
    watch.close()


def test_those_who_listen_to_a_database_learn_no_token_and_no_name(store, server, database):
    conn = PGconn.connect(server.conninfo(database))
    (channel,) = server.sql("SELECT lockkit.hello('default') ->> 'channel'", database=database)[0]
    conn.exec_(f'LISTEN "{channel}"'.encode())
    held, _ = take(store, "secret/lock")
    waiting = queue(store, "secret/lock")
    store.release(held, BUDGET)
    conn.exec_(b"SELECT 1")
    conn.consume_input()
    told = conn.notifies()
    conn.finish()

    assert told is not None
    assert waiting.token not in told.extra.decode()
    assert "secret" not in told.extra.decode()


# -- the server goes, and comes back


def test_claims_and_fences_survive_restarts_and_crashes(server, opened, url):
    store = opened(url)
    held, fence = take(store, "kept")
    _, before = take(store, "risen", ttl=0.1)
    for end in (server.stop, server.kill):
        end()
        until(lambda: _gone(store), "nobody answers: a worker may outlive a server that crashed by a moment")
        until(lambda: _started(server), "it starts")
        assert settled(lambda: renew(store, held, fence)).state == "HELD"
        assert isinstance(settled(lambda: store.acquire(claim("kept"), True, BUDGET)), Queued)

    assert take(store, "risen")[1] > before


def _gone(store):
    try:
        store.inspect("kept", 0.5)
    except (Refused, Unknown):
        return True
    return False


def _started(server):
    if not server.alive:
        try:
            server.start()
        except Exception:  # memory of the one that crashed is still in use, for a moment
            return False
    return True


# -- the schema


def test_who_opens_first_makes_the_schema_and_the_others_find_it(url, opened):
    threads = [threading.Thread(target=lambda: stores.append(opened(url))) for _ in range(6)]
    stores = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(stores) == 6
    take(stores[0])
    assert [states(store) for store in stores] == [["HELD"]] * 6


def test_the_owner_can_load_it_with_psql(server, database, opened):
    schema = Path(lockkit_postgres.__file__).with_name("schema.sql")
    command = [programs() / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-v", "schema=mine", "-f", schema]

    subprocess.run([*command, server.conninfo(database).decode()], check=True)
    assert server.sql("SELECT count(*) FROM mine.claim", database=database) == [["0"]]

    take(opened(server.url(database, schema="mine")))
    assert server.sql("SELECT count(*) FROM mine.claim", database=database) == [["1"]]


def test_a_schema_for_newer_readers_is_left_alone(store, server, url, opened, database):
    server.sql("UPDATE lockkit.layout SET version = 7, min_reader = 2", database=database)

    with pytest.raises(Refused) as caught:
        opened(url)

    assert isinstance(caught.value.error, IncompatibleLayout)
    assert "layout 7" in str(caught.value)


def test_schemas_are_worlds_apart(opened, url):
    take(opened(url))

    assert states(opened(f"{url}?schema=other")) == []


# -- rights


@pytest.fixture
def as_role(server, store, database):
    """Run the README's commands for the roles unchanged, block by block; returns the role's URL."""
    scripts = "".join(block.partition("```")[0] for block in README.split("```sql\n")[1:])
    command = [programs() / "psql", "-qX", "-v", "ON_ERROR_STOP=1", server.conninfo(database).decode()]
    subprocess.run(command, input=scripts, text=True, check=True)

    def grant(role):
        return server.url(database, role, "secret")

    yield grant
    for role in ("locker", "watcher"):
        server.sql(f"DROP OWNED BY {role}", database=database) if server.sql(
            "SELECT FROM pg_roles WHERE rolname = $1", role
        ) else None
        server.sql(f"DROP ROLE IF EXISTS {role}")


def test_the_rights_of_the_readme_are_enough_to_lock_and_the_tables_stay_closed(
    as_role, opened, server, database
):
    url = as_role("locker")
    with lockkit.connect(url) as client, lockkit.connect(url) as other:
        lease = client.lock("a").acquire(1.0)
        lease.confirm()
        assert client.annotate("a", lease.claim_id, {"x": 1})
        assert client.put_record("a", {"x": 1}, 0).version == 1
        got = []
        waiter = threading.Thread(target=lambda: got.append(other.lock("a").acquire(5.0)))
        waiter.start()
        until(lambda: client.inspect("a").waiters, "it waits")
        lease.release()
        waiter.join()
        assert client.evict("a", got[0].claim_id, reason="a test", now=True).outcome == "REMOVED"
        assert [found.severity for found in client.check() if found.check == "rights"] == ["ok"]
    with pytest.raises(Refused) as caught:
        opened(url)._pool.ask(BUDGET, "SELECT token FROM lockkit.claim")
    assert isinstance(caught.value.error, PermissionDenied)


def test_the_rights_of_the_readme_are_enough_to_look_and_no_more(as_role, store):
    held, _ = take(store, "a")
    with lockkit.connect(as_role("watcher")) as client:
        assert len(client.inspect("a").claims) == 1
        assert client.names() == ["a"]
        assert client.record("a") is None
        with pytest.raises(PermissionDenied, match="rights"):
            client.lock("b").try_acquire()
    assert store.release(held, BUDGET) == RELEASED


def test_who_may_not_make_the_schema_is_told_what_to_run(server, database, opened):
    server.sql("CREATE ROLE stranger LOGIN PASSWORD 'secret'")

    with pytest.raises(Refused) as caught:
        opened(server.url(database, "stranger", "secret"))

    server.sql("DROP ROLE stranger")
    assert isinstance(caught.value.error, PermissionDenied)
    assert "psql -v schema=lockkit -f" in str(caught.value.error)


# -- what is told of trouble


@both_ways
def test_a_wrong_password(server, database, way):
    error = trouble(server.url(database, password="hunter2x"), way)

    assert isinstance(error, PermissionDenied)


@both_ways
def test_a_database_that_does_not_exist(server, way):
    assert isinstance(trouble(server.url("nowhere"), way), BackendUnavailable)


@both_ways
def test_nobody_listens(way):
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        assert isinstance(
            trouble(f"postgres-lock://me:hunter2@127.0.0.1:{port.getsockname()[1]}/x", way),
            BackendUnavailable,
        )


@both_ways
def test_somebody_listens_and_never_answers(way):
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        port.listen()
        assert isinstance(
            trouble(f"postgres-lock://me:hunter2@127.0.0.1:{port.getsockname()[1]}/x", way),
            BackendUnavailable,
        )


def test_a_silent_host_before_the_good_one_costs_its_share_and_only_once(server, database, opened):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        both = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{server.port}"
        url = server.url(database).replace(f"127.0.0.1:{server.port}", both)
        with lockkit.connect(url) as client:  # which is given no timeout
            client.lock("a").acquire().release()
        store = opened(url)
        began = time.monotonic()
        store.emergency_release(claim(), BUDGET)  # over a new connection
        assert time.monotonic() - began < 0.5


def test_of_several_hosts_that_are_not_to_be_reached_each_is_told():
    error = trouble("postgres-lock://me:hunter2@127.0.0.1:1,127.0.0.1:2/x")
    assert "port 1 failed" in error.message
    assert "port 2 failed" in error.message


def test_what_libpq_says_of_a_bad_option_is_told_without_what_it_quotes():
    error = trouble("postgres-lock://me@127.0.0.1:1/x?sslmode=strict")
    assert error.message.endswith("invalid sslmode value")


def test_a_server_that_stops_answering_costs_a_call_its_budget(store, server, database):
    take(store)
    clients = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'"
    ((pid,),) = server.sql(clients, database)  # a database that is being vacuumed has another worker
    with server.paused(int(pid)):
        began = time.monotonic()
        with pytest.raises(Unknown):
            store.acquire(claim(), True, 0.3)
        assert time.monotonic() - began < IN_TIME, "it took more than its own budget"
        assert states(store) == ["HELD"], "the next call has a connection of its own"


@pytest.mark.parametrize(
    "url,said",
    [
        ("postgres-lock://me:hunter2@h/db?sslmod=require", "sslmod"),
        ("postgres-lock://me:hunter2@h/db?schema=1", "schema"),
        ('postgres-lock://me:hunter2@h/db?schema=a"b', "schema"),
        ("postgres-lock:db", "postgres-lock://user@host/database"),
        ("postgres-lock://me:hun%ter2@h/db", "escaped"),
        ("postgres-lock://me:hunter2/secret@h/db", "escaped"),
        ("postgres-lock://me:123/hunter2@h/db", "escaped"),
        ("postgres-lock://me:hunter2@secret@h/db", "escaped"),
        ("postgres-lock://me:x?hunter2=y@h/db", "escaped"),
        ("postgres-lock://me:hunter2", "escaped"),
    ],
)
def test_a_url_that_is_none(url, said):
    with pytest.raises(ConfigError, match=said) as caught:
        lockkit.connect(url).check()

    assert "hunter2" not in str(caught.value)
    assert "ter2" not in str(caught.value)
