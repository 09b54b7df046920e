"""The embedded store separates processes of one user in a private folder, real users in a shared one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import lockkit
from lockkit.errors import ConfigError, PermissionDenied
from lockkit.plugins import PluginManager
from lockkit.store.spi import OpenOptions, Refused
from lockkit.testing.took import Took
from lockkit_sqlite.backend import open_store
from lockkit_sqlite.descriptors import set_mode
from lockkit_sqlite.place import make_pulses
from lockkit_sqlite.pulse import UNKNOWN, Pulse, probe, remove, stale

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become two other users")

GROUP, ANN, BOB, EVE = 61100, 61101, 61102, 61103
"""Numbers that no account has: nobody needs a name or a home."""
AT_ONCE = 1.5
"""Seconds: less than the poll cap, after which a waiter asks again even if nobody woke it."""

USER = """
import contextlib, os, sys, threading
import lockkit

uid, groups, url, warm = int(sys.argv[1]), list(map(int, sys.argv[2].split())), sys.argv[3], sys.argv[4]
# Everything is imported before the rights are dropped: other users may not be able to read this environment.
with lockkit.connect(f"sqlite:{warm}/x.db", state_dir=warm) as client, client.lock("x").acquire():
    client.inspect("x")
    client.check()
os.setgroups(groups)
os.setgid(uid)
os.setuid(uid)
os.umask(0o077)
state = f"{warm}/state-{uid}"
client = lockkit.connect(url, scope=sys.argv[5], state_dir=state)
leases = {}

def acquire(name, **options):
    told = []

    def tell(_):
        if not told:
            told.append(print("waiting", flush=True))

    leases[name] = client.lock(name, **options).acquire(timeout=20, on_wait=tell)
    return leases[name].fence

def attempt(name, **options):
    leases[name] = client.lock(name, ttl=60, **options).try_acquire()
    return leases[name] is not None

def release(name):
    return leases[name].release().outcome

for row in sys.stdin:
    try:
        print(eval(row), flush=True)
    except lockkit.LockkitError as error:
        print(type(error).__name__, error, flush=True)
"""


class User:
    """A process of a user, which does what it is told and prints what came of it."""

    def __init__(self, uid, groups, url, warm, scope):
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(uid), " ".join(map(str, groups)), url, str(warm), scope],
            env={key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HOME": str(warm)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, order):
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()

    def said(self):
        return self.process.stdout.readline().rstrip("\n")

    def __call__(self, order):
        self.tell(order)
        return self.said()


@pytest.fixture
def place():
    """A folder that every user can reach, unlike pytest's."""
    made = Path(tempfile.mkdtemp(prefix="lockkit-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def shared(place):
    """A folder that a group shares; root's, if this is root."""
    folder = place / "shared"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 0, GROUP)
    folder.chmod(0o2770)
    return folder


@pytest.fixture
def user(place):
    """Start a process of a user."""
    with contextlib.ExitStack() as stack:

        def start(uid, url, groups=(GROUP,), scope="host"):
            warm = place / f"warm-{uid}"
            if not warm.exists():
                warm.mkdir(mode=0o700)
                state = warm / f"state-{uid}"
                state.mkdir(mode=0o700)
                os.chown(state, uid, uid)
                warm.chmod(0o755)
            one = User(uid, groups, url, warm, scope)
            stack.enter_context(one.process)
            stack.callback(one.process.kill)
            return one

        yield start


@pytest.fixture
def both(user, shared):
    url = f"sqlite:{shared}/host.db"
    return user(ANN, url), user(BOB, url)


# -- two users of one folder


@as_root
def test_two_users_exclude_each_other_and_see_each_other(both):
    ann, bob = both

    assert ann("attempt('x')") == "True"
    assert bob("attempt('x')") == "False"
    assert bob("[(c.state, c.alive, c.owner.pid) for c in client.inspect('x').claims]") == str(
        [("HELD", True, ann.process.pid)]
    )
    assert ann("release('x')") == "RELEASED"
    assert bob("attempt('x')") == "True"
    assert ann("attempt('x')") == "False"


@as_root
@pytest.mark.parametrize("first", [0, 1])
def test_a_release_wakes_a_waiter_of_the_other_user(both, first):
    holder, waiter = both[first], both[1 - first]
    fence = int(holder("acquire('x', ttl=60)"))
    waiter.tell("acquire('x', ttl=60)")
    assert waiter.said() == "waiting"

    assert holder("release('x')") == "RELEASED"
    with Took() as took:
        assert int(waiter.said()) > fence
    assert took.seconds < AT_ONCE


@as_root
@pytest.mark.parametrize("first", [0, 1])
def test_kill_9_of_one_user_frees_its_lock_for_the_other_at_once(both, first):
    holder, waiter = both[first], both[1 - first]
    holder("acquire('x', ttl=60)")
    waiter.tell("acquire('x', ttl=60)")
    assert waiter.said() == "waiting"

    holder.process.kill()
    with Took() as took:
        assert waiter.said().isdigit()
    assert took.seconds < AT_ONCE


@as_root
def test_a_waiter_that_is_killed_does_not_hold_up_the_other_user(both, user, shared):
    ann, bob = both
    third = user(BOB, f"sqlite:{shared}/host.db")
    ann("acquire('x', ttl=60)")
    bob.tell("acquire('x', ttl=60)")
    assert bob.said() == "waiting"
    third.tell("acquire('x', ttl=60)")
    assert third.said() == "waiting"

    bob.process.kill()
    bob.process.wait()
    assert ann("release('x')") == "RELEASED"
    with Took() as took:
        assert third.said().isdigit()
    assert took.seconds < AT_ONCE


@as_root
def test_one_user_may_evict_the_claim_of_the_other(both):
    ann, bob = both
    ann("acquire('x', ttl=3)")

    assert (
        bob("client.evict('x', client.inspect('x').holders[0].claim_id, reason='test').outcome") == "MARKED"
    )

    assert ann("leases['x'].lost.wait(10)") == "True"
    assert ann("leases['x'].lost_because") == "evicted"
    answers = [bob("acquire('x', ttl=60)")]
    if answers == ["waiting"]:
        answers.append(bob.said())
    assert answers[-1].isdigit()


@as_root
def test_whoever_comes_first_or_leaves_last_the_files_are_the_groups(both, user, shared):
    ann, bob = both
    for one in (ann, bob):
        assert one("attempt('x')") == "True"
        assert one("release('x')") == "RELEASED"
        assert one("client.close()") == "None"
    assert not list(shared.glob("*-wal")), "SQLite removed its log with the last connection"
    later = user(BOB, f"sqlite:{shared}/host.db"), user(ANN, f"sqlite:{shared}/host.db")

    assert [one("attempt('x')") for one in later] == ["True", "False"]

    entries = [each for each in shared.rglob("*") if not each.is_dir()]
    assert len(entries) >= 5, entries
    assert {(stat.S_IMODE(each.stat().st_mode), each.stat().st_gid) for each in entries} == {(0o660, GROUP)}


@as_root
def test_a_user_outside_the_group_is_refused_with_the_group(user, shared):
    eve = user(EVE, f"sqlite:{shared}/host.db", groups=())

    told = eve("attempt('x')")

    assert told.startswith("PermissionDenied ")
    assert f"the group {GROUP} shares its folder, and this process is not in that group" in told
    assert (
        f"(ask the administrator: sudo usermod -aG {GROUP} USER; "
        "then log in again; see: lockkit docs all-users)" in told
    )


@as_root
def test_an_owner_of_the_folder_who_is_not_in_its_group_is_refused_and_makes_nothing(user, shared):
    """The kernel would drop the setgid bit of the FIFO folder; users could not open each other's FIFOs."""
    os.chown(shared, ANN, GROUP)
    shared.chmod(0o2770)

    told = user(ANN, f"sqlite:{shared}/host.db", groups=())("attempt('x')")

    assert told.startswith("PermissionDenied ")
    assert f"the group {GROUP} shares {shared}, and its owner, this user, is not in that group" in told
    assert f"usermod -aG {GROUP} USER" in told
    assert not list(shared.iterdir())
    assert user(ANN, f"sqlite:{shared}/host.db", groups=(GROUP,))("attempt('x')") == "True"


def test_two_users_that_make_the_folder_of_fifos_at_the_same_moment_use_the_same(monkeypatch, shared):
    folder = shared / "x.db.pulses"
    rename = Path.rename
    made_before = []

    def later(made, path):  # another user is quicker, between the look and the renaming
        monkeypatch.undo()
        make_pulses(str(folder), shared=True)
        made_before.append(folder.stat().st_ino)
        return rename(made, path)

    monkeypatch.setattr(Path, "rename", later)
    make_pulses(str(folder), shared=True)

    assert made_before == [folder.stat().st_ino]
    assert [each.name for each in shared.iterdir()] == ["x.db.pulses"], "nothing else is left"


@pytest.mark.parametrize("make", ["mkdir", "mkfifo"])
def test_a_link_in_the_place_of_what_was_just_made_changes_no_mode_elsewhere(
    monkeypatch, shared, place, make
):
    """A member of the group may put it there, and the process may be root's."""
    victim = place / "victim"
    victim.mkdir() if make == "mkdir" else victim.touch()
    victim.chmod(0o700)
    real = getattr(os, make)

    def swapped(path, *mode, dir_fd=None):
        real(path, *mode, dir_fd=dir_fd)
        if dir_fd is not None:
            path = f"{Path(f'/proc/self/fd/{dir_fd}').readlink()}/{path}"
        if str(path).startswith(str(shared)):
            Path(path).rename(f"{path}.away")
            Path(path).symlink_to(victim)

    monkeypatch.setattr(os, make, swapped)
    with (
        pytest.raises(lockkit.BackendError),
        lockkit.connect(f"sqlite:{shared}/host.db", state_dir=str(place / "state")) as client,
    ):
        client.lock("x").try_acquire()

    assert stat.S_IMODE(victim.stat().st_mode) == 0o700


@as_root
def test_a_file_made_before_a_group_shared_the_folder_is_refused_and_doctor_says_so(user, shared):
    shared.chmod(0o700)
    os.chown(shared, ANN, GROUP)
    private = shared / "host.db"
    private.touch(mode=0o600)
    os.chown(private, ANN, GROUP)
    shared.chmod(0o2770)
    url = f"sqlite:{private}"

    assert "was made for its owner alone (mode 0600)" in user(BOB, url)("attempt('x')")
    told = user(ANN, url)("[(f.severity, f.message) for f in client.check() if f.check == 'file']")
    assert "'error'" in told
    assert "only its owner can use it" in told


@as_root
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_user_that_dies_while_it_makes_the_store_leaves_nothing_that_bars_the_others(
    monkeypatch, shared, user, nth
):
    """Death strikes just before the new folder of FIFOs, lock file or database gets the group's rights."""
    changed = []

    def dies(change):
        def dying(*given, **more):
            changed.append(given)
            if len(changed) == nth:
                raise SystemExit
            change(*given, **more)

        return dying

    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, dies(getattr(os, name)))
    with pytest.raises(SystemExit):
        open_store(f"sqlite:{shared}/host.db", OpenOptions())
    monkeypatch.undo()

    assert user(ANN, f"sqlite:{shared}/host.db")("attempt('x')") == "True"


@as_root
def test_many_users_that_begin_at_the_same_moment_are_all_served(user, shared):
    url = f"sqlite:{shared}/host.db"
    users = [user(uid, url) for uid in range(ANN, ANN + 6)]
    for one in users:
        assert one("1") == "1", "it is ready"

    for one in users:
        one.tell("attempt('x')")

    assert sorted(one.said() for one in users) == ["False"] * 5 + ["True"]


# -- the scope follows from the folder, before the store is opened


def scope_of(url):
    return PluginManager(disabled=["all"]).backend(url).capabilities.scope


@pytest.mark.parametrize(
    "mode, scope",
    [
        (0o700, "user"),
        (0o755, "user"),
        (0o2755, "user"),
        (0o2770, "host"),
        (0o2775, "host"),
    ],
)
def test_the_scope_follows_from_the_folder(place, mode, scope):
    folder = place / "folder"
    folder.mkdir()
    folder.chmod(mode)
    url = f"sqlite:{folder}/x.db"

    assert scope_of(url) == scope
    if scope == "host":
        lockkit.connect(url, scope="host").close()
    else:
        with pytest.raises(ConfigError, match="keeps apart only the processes of one user on one host"):
            lockkit.connect(url, scope="host")
    assert not list(folder.iterdir()), "nothing was opened"


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2755, 0o2770, 0o2775])
def test_an_open_store_has_the_scope_that_was_declared(place, mode):
    folder = place / "folder"
    folder.mkdir()
    folder.chmod(mode)
    store = open_store(f"sqlite:{folder}/x.db", OpenOptions())

    assert store.capabilities.scope == scope_of(f"sqlite:{folder}/x.db")
    store.close()


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o2777, 0o1777, 0o3770])
def test_a_folder_that_is_no_ones_and_no_groups_is_refused(place, mode):
    folder = place / "folder"
    folder.mkdir()
    folder.chmod(mode)

    with pytest.raises(Refused) as refused:
        open_store(f"sqlite:{folder}/x.db", OpenOptions())
    assert isinstance(refused.value.error, PermissionDenied)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o2777, 0o1777, 0o3770])
def test_a_store_of_a_group_whose_folder_has_another_mode_is_refused_with_that_mode(place, mode):
    folder = place / "folder"
    folder.mkdir()
    folder.chmod(mode)
    url, told = f"sqlite:{folder}/x.db", rf"{folder} is .*\(mode {mode:04o}\)"

    with lockkit.connect(url, scope="host") as client, pytest.raises(PermissionDenied, match=told):
        client.lock("a").try_acquire()
    with pytest.raises(Refused, match=told):
        PluginManager(disabled=["all"]).check(url)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_store_of_a_group_whose_folder_is_no_longer_shared_is_refused_with_its_mode(place, mode):
    folder = place / "folder"
    folder.mkdir()
    folder.chmod(0o2770)
    url = f"sqlite:{folder}/x.db"
    with lockkit.connect(url, scope="host") as client:
        client.lock("a").acquire().release()
    folder.chmod(mode)

    told = rf"a group shared {folder}, and no longer does \(mode {mode:04o}\)"
    with lockkit.connect(url, scope="host") as client, pytest.raises(PermissionDenied, match=told):
        client.lock("a").try_acquire()


@as_root
def test_root_makes_nothing_in_the_private_folder_of_another_user(tmp_path):
    """The owner could open neither the files nor root's FIFO, and would take root's process for dead."""
    os.chown(tmp_path, 4711, -1)
    with pytest.raises(
        Refused, match=r"belongs to uid 4711, .*, and no group shares it \(mode 0700\)"
    ) as caught:
        open_store(f"sqlite:{tmp_path}/locks.db", OpenOptions())
    assert not caught.value.retry
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_yet_will_be_one_users_own(place):
    url = f"sqlite:{place}/new/x.db"

    assert scope_of(url) == "user"
    with pytest.raises(ConfigError, match="but scope is 'host'"):
        lockkit.connect(url, scope="host")
    assert not (place / "new").exists()


@pytest.mark.parametrize("url", ["sqlite:", "sqlite:relative.db", "sqlite://host/x", "sqlite:/x.db?wrong=1"])
def test_a_url_without_a_folder_declares_the_users_own(url):
    assert scope_of(url) == "user"


def test_a_link_leads_to_the_folder_that_counts(place, shared):
    inside, outside = shared / "host.db", place / "link.db"
    outside.symlink_to(inside)
    (place / "folder").symlink_to(shared)
    (place / "loop").symlink_to("loop")

    assert scope_of(f"sqlite:{outside}") == "host"
    assert scope_of(f"sqlite:{place}/folder/x.db") == "host"
    assert scope_of(f"sqlite:{place}/loop/x.db") == "user"


@as_root
@pytest.mark.parametrize("owner, mode", [(0, 0o755), (ANN, 0o755), (ANN, 0o700)])
def test_a_folder_of_somebody_else_is_declared_private_and_refused(user, place, owner, mode):
    folder = place / "folder"
    folder.mkdir(mode=0o755)
    os.chown(folder, owner, owner)
    folder.chmod(mode)
    url = f"sqlite:{folder}/x.db"

    assert scope_of(url) == "user"
    assert user(BOB, url, scope="user")("attempt('x')").startswith("PermissionDenied ")


def test_a_folder_that_is_made_private_before_the_store_is_opened_is_noticed(shared, place, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(place / "state"))
    with lockkit.connect(f"sqlite:{shared}/host.db", scope="host") as client:
        shared.chmod(0o700)

        with pytest.raises(ConfigError, match="but scope is 'host'"):
            client.lock("x").try_acquire()

        shared.chmod(0o2770)
        with client.lock("x").try_acquire():
            assert client.capabilities.scope == "host"


def test_a_shared_folder_is_not_replaced_by_a_private_one_under_an_open_store(shared):
    store = open_store(f"sqlite:{shared}/host.db", OpenOptions())
    shutil.rmtree(shared)
    shared.mkdir(mode=0o700)

    with pytest.raises(Refused, match="no longer does"):
        store.inspect("x", 2.0)
    store.close()


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_folder_that_a_group_shared_is_no_private_one_for_newcomers(both, user, shared, mode):
    """Only a newcomer could open its own FIFO, so processes inside could not see whether it lives."""
    ann, _ = both
    assert ann("attempt('x')") == "True"
    os.chown(shared, BOB, GROUP)
    shared.chmod(mode)

    told = user(BOB, f"sqlite:{shared}/host.db", scope="user")("attempt('y')")
    assert told.startswith("PermissionDenied ")
    assert f"a group shared {shared}, and no longer does (mode {mode:04o})" in told
    assert f"chmod 2770 {shared}" in told
    told = user(0, f"sqlite:{shared}/host.db", scope="user")("attempt('y')")
    assert told.startswith(f"PermissionDenied {shared} belongs to uid {BOB}")

    shutil.rmtree(shared / "host.db.pulses")
    assert user(BOB, f"sqlite:{shared}/other.db", scope="user")("attempt('y')") == "True"


@as_root
def test_files_of_the_group_that_shared_the_folder_before_are_refused_with_both_groups(both, user, shared):
    ann, _ = both
    assert ann("attempt('x')") == "True"
    os.chown(shared, 0, GROUP + 1)
    shared.chmod(0o2770)

    told = user(EVE, f"sqlite:{shared}/host.db", groups=(GROUP + 1,))("attempt('x')")

    assert f"{shared}/host.db belongs to the group {GROUP}, and its folder to the group {GROUP + 1}" in told
    assert f"chgrp -R {GROUP + 1} {shared}" in told


# -- the command that the error names


def refused(url=None, **more):
    with pytest.raises(ConfigError) as caught:
        lockkit.connect(url, scope="host", **more)
    return caught.value.hint


COMMAND = re.compile(
    r"of this host: (?P<init>(sudo )?lockkit host init --group GROUP)"
    r"(?P<use>; then [^;]+)?; see: lockkit docs all-users$"
)
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def plain(monkeypatch, tmp_path):
    """No configuration, so that the store is the default one."""
    for name in [name for name in os.environ if name.startswith("LOCKKIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOCKKIT_CONFIG", "/dev/null")
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@as_root
@pytest.mark.parametrize("source", ["default", "LOCKKIT_URL"])
@pytest.mark.parametrize("euid", [0, ANN])
def test_the_command_of_the_error_makes_a_store_of_all_users(plain, place, user, source, euid):
    plain.setattr("os.geteuid", lambda: euid)
    if source != "default":
        plain.setenv("LOCKKIT_URL", f"sqlite:{place}/own/x.db")
    found = COMMAND.search(refused())
    assert found
    assert ("sudo" in found["init"]) == (euid != 0)
    assert found["use"] == (None if source == "default" else "; then unset LOCKKIT_URL")
    plain.undo()
    tools = place / "tools"
    tools.mkdir()
    (tools / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tools / "lockkit").write_text(f'#!/bin/sh\nexec {sys.executable} -m lockkit "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)

    command = found["init"].replace("GROUP", str(GROUP))
    paths = f"--folder {place}/made --config {place}/etc.toml"
    subprocess.run(
        ["sh", "-c", f"{command} {paths}"],
        env=os.environ
        | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        check=True,
    )
    url = lockkit.config.config.load(config=place / "etc.toml", environ={}).url

    ann, bob = user(ANN, url), user(BOB, url)
    assert ann("client.capabilities.scope, attempt('x')") == "('host', True)"
    assert bob("attempt('x')") == "False"


def test_the_page_shows_the_command_of_the_error(plain):
    plain.setattr("os.geteuid", lambda: ANN)
    found = COMMAND.search(refused())

    page = (DOCS / "howto" / "all-users.md").read_text()
    assert f"\n$ {found['init']}\n" in page


def test_a_url_that_the_environment_does_not_replace_is_named_instead(plain, place):
    hint = refused(f"sqlite:{place}/own/x.db")

    assert hint.startswith("the URL was given in the call, or with --url; ")
    assert "; then use sqlite:/var/lib/lockkit/host.db" in hint
    assert "export" not in hint


def test_a_fleet_is_another_store(plain):
    with pytest.raises(ConfigError) as caught:
        lockkit.connect(scope="fleet")

    assert "redis://" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        lockkit.connect("memory:", scope="user")
    assert "use sqlite:, the default" in caught.value.hint


# -- a member of the group who puts something else in the place of the folder of FIFOs

NAME = "0123456789abcdef01234567"
LONG_AGO = 1.0


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def filled(folder):
    """A folder with what lockkit would remove from a folder of FIFOs of its own."""
    folder.mkdir()
    for name in (NAME, f"{NAME}.new"):
        os.mkfifo(folder / name)
        os.utime(folder / name, (LONG_AGO, LONG_AGO))


@pytest.fixture
def elsewhere(tmp_path):
    """A link that has the name of a folder of FIFOs, and the folder that it leads to."""
    victim = tmp_path / "victim"
    filled(victim)
    link = tmp_path / "x.db.pulses"
    link.symlink_to(victim)
    return link, victim


def test_the_sweep_removes_old_fifos_and_nothing_else(tmp_path):
    filled(tmp_path / "pulses")
    (tmp_path / "pulses/shadow.new").touch()
    os.utime(tmp_path / "pulses/shadow.new", (LONG_AGO, LONG_AGO))

    assert list(stale(str(tmp_path / "pulses"), 100)) == [NAME]

    assert names(tmp_path / "pulses") == [NAME, "shadow.new"]


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: list(stale(folder, 100)),
        lambda folder: remove(folder, NAME),
        lambda folder: probe(folder, NAME),
    ],
    ids=["sweep", "remove", "probe"],
)
def test_nothing_is_removed_or_found_where_a_link_leads(elsewhere, act):
    link, victim = elsewhere
    before = names(victim)

    assert act(str(link)) in ([], None, UNKNOWN)

    assert names(victim) == before


def test_a_fifo_is_neither_made_nor_removed_nor_put_back_where_a_link_leads(tmp_path, elsewhere):
    link, victim = elsewhere
    with pytest.raises(Refused, match="not a folder"):
        Pulse(str(link), 0o600)
    pulse = Pulse(str(tmp_path / "own"), 0o600)
    (victim / pulse.name).touch()
    before = names(victim)
    (tmp_path / "own").rename(tmp_path / "away")
    (tmp_path / "own").symlink_to(victim)

    assert pulse.heal() is None
    pulse.retire()

    assert names(victim) == before


@pytest.mark.parametrize("name", ["../victim/shadow", "/etc/passwd", "shadow"])
def test_only_the_names_of_fifos_are_removed(tmp_path, name):
    victim = tmp_path / "victim"
    filled(victim)
    (victim / "shadow").touch()
    remove(str(victim), name)
    assert (victim / "shadow").exists()


@as_root
def test_the_mode_of_what_another_user_put_in_its_place_is_not_set(tmp_path):
    (tmp_path / "file").touch(mode=0o600)
    os.chown(tmp_path / "file", BOB, GROUP)
    with pytest.raises(OSError, match="another user has replaced it"):
        set_mode(str(tmp_path / "file"), 0o660)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
