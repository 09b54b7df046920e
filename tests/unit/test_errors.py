import copy
import inspect
import json
import pickle

import pytest

from lockkit import errors
from lockkit.config.suggesting import SameStore
from lockkit.facts import ClaimInfo, Drain, Owner, ReleaseReport
from lockkit.protocol.denials import drain_ends

HOLDER = ClaimInfo("gpu:0", "0123456789ab", "HELD", Owner("ann", "box", 4711), 7, 0)
REPORT = ReleaseReport("gpu:0", "0123456789ab", 7, "ABANDONED", "normal", expires_by=12.0)
EVERY = [getattr(errors, name) for name in errors.__all__]


def make(kind):
    if kind is errors.ReleaseFailed:
        return kind("it went wrong", report=REPORT, name="gpu:0", hint="lockkit recover")
    more = {"drain": Drain("prod", "new kernel")} if kind is errors.Drained else {}
    return kind("it went wrong", **more, name="gpu:0", holder=HOLDER, hint="lockkit explain gpu:0")


def test_every_exception_of_the_module_is_listed():
    defined = {
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    assert defined == set(errors.__all__)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(
    "remake", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy]
)
def test_all_pickle_with_everything_they_carry(kind, remake):
    error = make(kind)
    error.note = "added by somebody"
    twin = remake(error)
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert twin.__dict__ == error.__dict__


@pytest.mark.parametrize("kind", EVERY)
def test_the_message_ends_with_what_to_do_next(kind):
    error = make(kind)
    assert str(error) == f"it went wrong ({error.hint})"
    assert error.name == "gpu:0"


@pytest.mark.parametrize("kind", EVERY)
def test_all_are_lockkit_errors(kind):
    assert issubclass(kind, errors.LockkitError)


def test_a_timeout_is_also_pythons():
    assert issubclass(errors.AcquireTimeout, TimeoutError)


@pytest.mark.parametrize("kind", EVERY)
def test_all_are_made_anew_from_what_json_carries(kind):
    """As the result backends of task queues do, from the arguments of the exception."""
    error = make(kind).carriable()
    twin = kind(*json.loads(json.dumps(error.args)))
    assert str(twin) == str(error)
    assert repr(twin) == repr(error) == f"{kind.__name__}('it went wrong')"
    assert (twin.name, twin.hint) == (error.name, error.hint)
    if kind is errors.ReleaseFailed:
        assert twin.report == REPORT
        return
    assert (twin.holder.claim_id, twin.holder.fence, twin.holder.owner) == ("0123456789ab", 7, HOLDER.owner)
    if kind is errors.Drained:
        assert twin.drain == error.drain


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(
    "told", [None, 7, "x", {}, {"name": 1, "hint": [], "holder": 3, "drain": [], "report": 1}]
)
def test_what_says_nothing_is_left_out(kind, told):
    twin = kind("it went wrong", told)
    assert (str(twin), twin.name, twin.hint, twin.holder) == ("it went wrong", None, None, None)


def test_without_a_hint_the_message_stands_alone():
    assert str(errors.BackendUnavailable("the disk is full")) == "the disk is full"


@pytest.mark.parametrize(
    "drain, store, line",
    [
        (Drain("prod"), SameStore(), "to end it: lockkit undrain prod"),
        (Drain("prod"), SameStore(" --namespace prod"), "to end it: lockkit undrain --namespace prod"),
        (
            Drain("a b"),
            SameStore(" --url x:", " (first)"),
            "to end it (first): lockkit undrain --url x: 'a b'",
        ),
        (Drain("prod"), SameStore(reachable=False), "client.undrain() ends it"),
        (
            Drain("prod", partial=True),
            SameStore(" --profile p"),
            "to finish it: lockkit drain --profile p prod, or to end it: lockkit undrain --profile p prod",
        ),
    ],
)
def test_the_line_that_ends_a_drain_fits_its_store_and_how_far_it_got(drain, store, line):
    assert drain_ends(drain, store) == line
