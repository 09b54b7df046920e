"""A name, owner, note or reason that would rewrite the screen: escaped for people everywhere, raw in JSON."""

import io
import logging
import os
import pickle
import pty
import select
import subprocess
import time

import pytest
from rich.console import Console

import lockkit
from lockkit.cli.lock_table import table_of
from lockkit.config.suggesting import command_line
from lockkit.errors import AcquireTimeout, BackendUnavailable
from lockkit.facts import ClaimInfo, Event, LockInfo, Owner
from lockkit.lib.printable import printable
from lockkit.observe import journal
from lockkit.plugins.manager import PluginManager
from lockkit.store.spi import Claim, OpenOptions, Terms
from lockkit.values.events import Counters
from lockkit.values.names import new_token

C1 = "".join(map(chr, range(0x80, 0xA0)))
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u2028\u2029\u00a0"
NASTY = f"a\u009b31m{C1}{BIDI}{UNSEEN}z"
HARD = f"{NASTY}\x1b[2J\x07\x7f\r"
"""With what a name may not have; an owner, a note or a reason may."""


def clean(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.fixture
def held(lockkit):
    """The id of a claim on NASTY, whose owner and note are no better."""
    url = f"sqlite:{lockkit.folder}/state/lockkit.db"
    (lockkit.folder / "state").mkdir(mode=0o700)
    owner = Owner(user=HARD, host=HARD, pid=os.getpid(), program=HARD, pod=HARD, task=HARD)
    store = PluginManager().open(url, OpenOptions(state_dir=f"{lockkit.folder}/state"))
    claim = Claim(
        new_token(),
        Terms(NASTY, 600.0, kind="semaphore", capacity=2, weight=2, owner=owner),
        note={"why": HARD},
    )
    assert store.acquire(claim, True, 5.0).fence
    yield store.inspect(NASTY, 5.0).holders[0].claim_id
    store.close()


COMMANDS = [
    ("status",),
    ("status", NASTY),
    ("explain", NASTY),
    ("wait", NASTY, "--timeout", "0"),
    ("wait", NASTY, "--timeout", "0.2"),
    ("acquire", NASTY, "--timeout", "0", "--capacity", "2"),
    ("acquire", NASTY, "--timeout", "0"),
    ("run", "--timeout", "0.2", "--capacity", "2", NASTY, "--", "true"),
    ("run", "--timeout", "0.2", NASTY, "--", "true"),
    ("run", f"{NASTY}2", "--", HARD),
    ("held", NASTY),
    ("release", NASTY),
    ("evict", NASTY, "--claim", "0123456789ab", "--reason", HARD),
    ("resize", NASTY, "3"),
    ("failures", "list"),
    ("failures", "show", "f1"),
    ("failures", "show", HARD),
    ("doctor",),
    ("config", "show"),
    ("config", "check"),
    ("plugins",),
    (HARD,),
    ("status", HARD),
    ("status", "--namespace", HARD),
    ("status", "--profile", HARD),
    ("status", "--url", f"sqlite:/nowhere/{HARD}"),
    ("status", "--url", f"redis://{HARD}"),
    ("status", HARD, HARD),
    ("status", f"--{HARD}"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: printable(" ".join(words))[:30])
def test_no_command_writes_what_does_not_print(lockkit, held, words):
    journal.append(lockkit.folder / "state", {"id": "f1", "name": NASTY, "claim": "c", "errors": [HARD]})
    done = lockkit(*words, env={"PYTHONIOENCODING": "utf-8"})
    assert done.stdout + done.stderr
    assert clean(done.stdout), ascii(done.stdout)
    assert clean(done.stderr), ascii(done.stderr)


def test_what_is_done_to_a_name_that_does_not_print_is_told_escaped_and_the_lines_to_paste_work(
    lockkit, held
):
    env = {"PYTHONIOENCODING": "utf-8"}
    name = f"-{NASTY}'\\"
    for words in (("acquire", "--ttl", "60"), ("held",), ("release",)):
        done = lockkit(*words, "--", name, env=env)
        assert done.returncode == 0, done.stderr
        assert clean(done.stdout + done.stderr)
    evicted = lockkit("evict", NASTY, "--claim", held, "--reason", HARD, env=env)
    assert evicted.returncode == 0, evicted.stderr
    told = lockkit("explain", NASTY, env=env)
    assert clean(evicted.stdout + evicted.stderr + told.stdout)
    for text in (name, NASTY, "plain", "with blank"):
        # As bash reads it; where it is called another way, every shell agrees on what needs no escape.
        read = subprocess.run(
            ["bash", "-c", f"printf %s {command_line('', text).split(' ', 2)[2]}"],
            capture_output=True,
            check=True,
            env={"LC_ALL": "C.UTF-8"},
        )
        assert read.stdout.decode().removeprefix("--") == text


def test_json_has_names_owners_and_notes_as_they_are(lockkit, held):
    (lock,) = lockkit.json("status", NASTY)["locks"]
    (claim,) = lock["holders"]
    assert (lock["name"], claim["claim_id"], claim["note"]["why"]) == (NASTY, held, HARD)
    assert (claim["owner"]["user"], claim["owner"]["program"]) == (HARD, HARD)
    assert lockkit.json("explain", NASTY)["lock"]["name"] == NASTY


@pytest.mark.parametrize("width", [40, 80, 130])
def test_the_table_of_the_terminal_shows_it_escaped(width):
    who = Owner(user=HARD, host=HARD, pid=1, program=HARD)
    claim = ClaimInfo(NASTY, "3f2a9c01b7de", "HELD", who, 7, 0, since=time.time())
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table_of([LockInfo(NASTY, (claim,))], width))
    out = console.export_text()
    assert clean(out)
    assert "\\x9b" in out


def test_the_live_page_shows_it_escaped(lockkit, held):
    ours, theirs = pty.openpty()
    env = lockkit.env | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"}
    page = subprocess.Popen(
        lockkit.line("status", "--watch"), stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    lockkit.started.append(page)
    seen = b""
    while b"\\u2028" not in seen and b"waiters" not in seen.partition(b"31m")[2]:
        assert select.select([ours], [], [], 20.0)[0], seen
        seen += os.read(ours, 65536)
    os.close(theirs)
    text = seen.decode(errors="replace")
    assert "\\x9b31m" in text
    assert not set(text) & set(C1 + BIDI + UNSEEN)


def test_errors_logs_and_reprs_show_it_escaped(caplog):
    client = lockkit.connect("memory:", namespace="printable")
    lock = client.lock(NASTY)
    lease = lock.acquire(timeout=0)
    with pytest.raises(AcquireTimeout) as raised, lockkit.connect("memory:", namespace="printable") as other:
        other.lock(NASTY).acquire(timeout=0.01)
    assert raised.value.name == NASTY
    owner = Owner(user=HARD, host=HARD, pid=1, program=HARD)
    error = BackendUnavailable(f"the server says: {HARD}", hint=HARD)
    shown = [
        lease,
        lock,
        client,
        lease.release(),
        raised.value,
        error,
        pickle.loads(pickle.dumps(error)),
        owner,
    ]
    for one in shown:
        assert clean(str(one)), ascii(str(one))
        assert clean(repr(one)) or isinstance(one, BaseException), ascii(repr(one))
    assert error.message.endswith(HARD)
    from lockkit.drivers.dispatch import Dispatcher

    with caplog.at_level(logging.DEBUG, "lockkit"):
        for kind in ("lost", "skipped", "emergency"):
            told = Event(kind, NASTY, "c", 1, HARD, data={"holder": HARD, "error": HARD})
            Dispatcher(Counters(), lockkit.lib.clock.SYSTEM).tell(told)
    assert len(caplog.records) >= 3
    assert all(clean(record.getMessage()) for record in caplog.records)
    assert caplog.records[-1].lock == NASTY
    client.close()


@pytest.mark.parametrize(
    "text, shown",
    [
        ("gpu:0", "gpu:0"),
        ("übung 東京 🔒", "übung 東京 🔒"),
        ("a\u009b31m", r"a\x9b31m"),
        ("a\u202eb\u2028", r"a\u202eb\u2028"),
        ("a\\b", "a\\b"),
        ("a\nb", r"a\nb"),
        ("\udc80", r"\udc80"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_does_not_print_is_escaped_as_repr_does(text, shown):
    assert printable(text) == shown


def test_lines_of_ours_are_kept_and_no_other_ends_of_lines():
    assert printable("a\nb\r\u2028\x85\x0b", lines=True) == "a\nb\\r\\u2028\\x85\\x0b"
