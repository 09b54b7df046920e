"""The kit as others use it: from the command line, on a store of their own, right or wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from support.running_pytest import PYTEST

THEIRS = '''
from hypothesis import Phase, settings

from lockkit.hooks import hookimpl
from lockkit.store.spi import BackendSpec, RELEASED
from lockkit.values.names import claim_id
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.harness import Harness as Base, StoredClaim
from lockkit.testing.seen import Seen
from lockkit_memory import CAPABILITIES
from lockkit_memory.backend import MemoryBackend
from lockkit_memory.store import MemoryStore


settings.register_profile("unshrunk", phases=set(Phase) - {Phase.shrink})
settings.load_profile("unshrunk")


class Wrong:
    """Removes whatever holds the lock, whoever asks."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def release(self, claim, budget, *, how="released"):
        for row in self._inner.inspect(claim.terms.name, budget).holders[:1]:
            self._inner.evict(claim.terms.name, row.claim_id, budget, now=True)
        return RELEASED


class WrongOnce(Wrong):
    """Removes what another claim holds until the machine has noticed, so that no failure can be replayed."""

    noticed = False

    def release(self, claim, budget, *, how="released"):
        if WrongOnce.noticed:
            return self._inner.release(claim, budget, how=how)
        return super().release(claim, budget, how=how)


compare = Seen.compare


def noticing(*arguments):
    try:
        compare(*arguments)
    except AssertionError:
        WrongOnce.noticed = True
        raise


Seen.compare = noticing


class Offer:
    def __init__(self, open):
        self.open = open

    @hookimpl
    def lockkit_backends(self):
        return [BackendSpec("theirs", ("theirs",), self.open, "a store of theirs", CAPABILITIES)]


class Harness(Base):
    name = "theirs"
    virtual = True
    ttl = 30.0
    short_ttl = 0.4
    examples = (12, 15)
    wrong = None
    url = "theirs://here"

    def __init__(self, scratch):
        super().__init__(scratch)
        self.clock = ShiftedClock()
        self.store = MemoryStore(self.clock)
        self.plugins = [Offer(self.open_theirs)]

    def open_theirs(self, url, options):
        backend = MemoryBackend(self.store, options)
        return self.wrong(backend) if self.wrong else backend

    def advance(self, seconds):
        self.clock.advance(seconds)

    def freeze(self):
        self.clock.freeze()

    def stored(self, name):
        queue = self.store.queues.get(name)
        return [
            StoredClaim(
                claim_id(row.token), row.fence, row.state, row.weight, row.capacity,
                None if row.deadline == float("inf") else row.deadline, row.evicted,
            )
            for row in (queue.rows.values() if queue else ())
        ]


class Broken(Harness):
    wrong = Wrong


class BrokenOnce(Harness):
    wrong = WrongOnce
    examples = (60, 15)


class Modest(Harness):
    exclusions = {"S1-wrong-token": "we are modest"}


class Careless(Harness):
    exclusions = {"S99": "there is no such thing"}
'''


FEW = """
from theirs import Harness

from lockkit.testing.kit import kit
from lockkit.testing.shapes import SEMAPHORE

test_few = kit(Harness, shapes=(SEMAPHORE,))
"""


@pytest.fixture
def pytest_run(tmp_path):
    (tmp_path / "theirs.py").write_text(THEIRS)
    (tmp_path / "test_their_own.py").write_text("def test_their_own(): pass\n")
    (tmp_path / "test_few.py").write_text(FEW)

    def run(*arguments):
        paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.run(
            [*PYTEST, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


@pytest.fixture
def kit(pytest_run):
    return lambda harness, *arguments: pytest_run("--lockkit-kit", harness, *arguments)


def test_the_command_line_runs_the_kit_and_nothing_else(kit):
    done = kit("theirs:Harness", "-k", "S1- or S7-stale or own", "-vv")
    assert done.returncode == 0, done.stdout
    assert "::S7-stale-release[mutex] PASSED" in done.stdout
    assert "::S7-stale-release[readers] PASSED" in done.stdout
    assert done.stdout.count("S1-S2-S4-S5-S7-S11-L4-machine PASSED") == 1, "the kit runs once"
    assert "test_their_own" not in done.stdout


def test_beside_files_that_are_named(kit):
    done = kit("theirs:Harness", "test_their_own.py", "-k", "own or S1-idempotent", "-vv")
    assert done.returncode == 0, done.stdout
    assert "test_their_own PASSED" in done.stdout
    assert "S1-idempotent-calls[mutex] PASSED" in done.stdout


@pytest.mark.parametrize("whole", [False, True], ids=["as the file asks", "whole"])
def test_a_file_may_ask_for_some_kinds_of_lock_and_a_whole_run_plays_all(pytest_run, whole):
    done = pytest_run(
        "test_few.py", "-k", "S7-stale or S8-refused", "-vv", *(["--lockkit-whole"] if whole else [])
    )
    assert done.returncode == 0, done.stdout
    shown = re.findall(r"test_few::(\S+) PASSED", done.stdout)
    assert "S8-refused-names" in shown, "what has no kind is always played"
    kinds = ["mutex", "semaphore", "readers", "writer"] if whole else ["semaphore"]
    assert [each for each in shown if "S7" in each] == [f"S7-stale-release[{kind}]" for kind in kinds]


def test_a_store_that_breaks_a_promise_fails_by_the_name_of_the_promise(kit):
    done = kit("theirs:Broken", "-k", "S7-stale or S1-wrong or S8-refused or machine", "-vv")
    assert done.returncode == 1
    for name in ("S7-stale-release[mutex]", "S1-wrong-token[semaphore]", "S1-S2-S4-S5-S7-S11-L4-machine"):
        assert f"::{name} FAILED" in done.stdout, done.stdout
    assert "S8-refused-names PASSED" in done.stdout
    assert re.search(r"AssertionError: [SL]\d+-\w", of_the_machine(done)), "the machine names the guarantee"


def test_a_failure_that_does_not_replay_is_shown_by_the_name_of_the_promise_too(kit):
    done = kit("theirs:BrokenOnce", "-k", "machine", "-vv")
    assert done.returncode == 1, done.stdout
    assert re.search(r" - AssertionError: [SL]\d+-\w", of_the_machine(done)), done.stdout


def of_the_machine(done):
    """The row of the state machine in the summary of failures."""
    (row,) = [row for row in done.stdout.splitlines() if row.startswith("FAILED") and "-machine" in row]
    return row


def test_claiming_less_than_the_store_does_fails(kit):
    done = kit("theirs:Modest", "-k", "S1-wrong")
    assert done.returncode == 1
    assert "S1-wrong-token is excluded (we are modest), but passes" in done.stdout


def test_an_exclusion_that_names_nothing_is_an_error(kit):
    done = kit("theirs:Careless", "-k", "S1-wrong")
    assert done.returncode != 0
    assert "exclusions that name nothing in the kit: S99" in done.stdout


WITHOUT = """
import sys

sys.modules["hypothesis"] = None
"""


def test_without_hypothesis_the_scenarios_run_and_the_state_machine_says_what_to_install(
    pytest_run, tmp_path
):
    (tmp_path / "without.py").write_text(WITHOUT)
    theirs = tmp_path / "theirs.py"
    theirs.write_text(re.sub(r"(?m)^(from hypothesis|settings\.).*\n", "", theirs.read_text()))

    options = [
        "-p",
        "no:hypothesispytest",
        "-p",
        "without",
        "-k",
        "machine or S8-refused",
        "-vv",
    ]
    done = pytest_run("--lockkit-kit", "theirs:Harness", *options)

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "S8-refused-names PASSED" in done.stdout
    assert 'the state machine needs hypothesis: pip install "lockkit[testing]"' in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("harness", ["nowhere:Harness", "theirs", "theirs:Nobody", "theirs:Wrong", ":"])
def test_a_harness_that_is_none_is_a_usage_error(kit, harness):
    done = kit(harness)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--lockkit-kit" in done.stderr


def test_the_plugin_costs_those_who_do_not_use_it_nothing():
    code = (
        "import sys, lockkit.testing.plugin; "
        "print([m for m in ('hypothesis', 'sqlite3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
