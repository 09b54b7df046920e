"""MIG slices in a host's pool: NVIDIA's own module on a steered driver, a process for each program."""

from __future__ import annotations

import pytest

from lockkit.testing.processes import until

GIB = 1 << 30
SMALL, LARGE = 10 * GIB, 20 * GIB
MIB = 1 << 20


@pytest.fixture
def sliced(host):
    """A host whose card 0 has two slices, and card 1 none."""
    host.card(0, mig=1, gpu=None)
    host.card("0.1", name="NVIDIA H100 80GB HBM3 MIG 1g.10gb", total=SMALL, reserved=0)
    host.card("0.2", name="NVIDIA H100 80GB HBM3 MIG 2g.20gb", total=LARGE, reserved=0)
    host.card(1)
    return host


@pytest.fixture
def ann(sliced):
    with sliced.requester() as program:
        yield program


@pytest.fixture
def bob(sliced):
    with sliced.requester() as program:
        yield program


def test_a_slice_is_held_by_its_uuid_and_shown_to_cuda_by_it(ann):
    got = ann.do("acquire", {"ids": ["MIG-0.1"], "timeout": 10})
    assert got == {"members": ["MIG-0.1"], "visible": "MIG-0.1", "devices": ["MIG-0.1"]}


@pytest.mark.parametrize("where", ["ids", "variable"])
def test_a_slice_may_be_named_as_drivers_before_r470_did_and_is_shown_to_cuda_by_its_uuid(sliced, where):
    sliced.set("0.2", "gi", 5)
    old = "MIG-GPU-0/5/0"
    with sliced.requester(**({"CUDA_VISIBLE_DEVICES": old} if where == "variable" else {})) as program:
        got = program.do("acquire", {"ids": [old] if where == "ids" else None, "timeout": 10})
        assert got == {"members": ["MIG-0.2"], "visible": "MIG-0.2", "devices": ["MIG-0.2"]}
        both = program.do("acquire", {"ids": ["GPU-0", old], "timeout": 0})
        assert "GPU-0 and its slice MIG-0.2 cannot both be asked for" in both["told"]


def test_a_slice_also_weighs_in_the_queue_of_its_card(ann, bob):
    ann.do("acquire", {"ids": ["MIG-0.1"], "timeout": 10})
    assert (ann.do("weights", "MIG-0.1"), ann.do("weights", "GPU-0")) == ([SMALL // MIB], [SMALL // MIB])
    bob.do("acquire", {"ids": ["MIG-0.2"], "timeout": 10})
    assert sorted(ann.do("weights", "GPU-0")) == [SMALL // MIB, LARGE // MIB]
    ann.do("release")
    assert (bob.do("weights", "MIG-0.1"), bob.do("weights", "GPU-0")) == ([], [LARGE // MIB])


def test_a_share_of_a_slice_weighs_as_much_in_its_card(ann, bob):
    for program in (ann, bob):
        program.do("acquire", {"ids": ["MIG-0.1"], "memory": "4GiB", "timeout": 10})
    assert ann.do("weights", "GPU-0") == ann.do("weights", "MIG-0.1") == [4096, 4096]
    third = ann.do("acquire", {"ids": ["MIG-0.1"], "memory": "4GiB", "timeout": 0})
    assert third["error"] == "AcquireTimeout"


def test_two_programs_do_not_get_one_slice(ann, bob):
    ann.do("acquire", {"ids": ["MIG-0.1"], "timeout": 10})
    assert bob.do("acquire", {"ids": ["MIG-0.1"], "timeout": 0})["error"] == "AcquireTimeout"
    bob.do("begin", {"ids": ["MIG-0.1"], "timeout": 30})
    until(lambda: ann.do("waiters", "MIG-0.1"))
    ann.do("release")
    assert bob.do("result")["members"] == ["MIG-0.1"]


def test_a_divided_card_is_not_given_out_and_any_slice_or_whole_card_is(ann):
    refused = ann.do("acquire", {"ids": ["0"], "timeout": 10})
    assert (refused["error"], "it is divided into slices" in refused["told"]) == ("ConfigError", True)
    got = [ann.do("acquire", {"timeout": 10})["members"] for _ in range(3)]
    assert sorted(got) == [["GPU-1"], ["MIG-0.1"], ["MIG-0.2"]]


def test_a_whole_card_waits_for_the_holders_of_its_former_slices(sliced, ann, bob):
    ann.do("acquire", {"ids": ["MIG-0.1"], "timeout": 10})
    sliced.set(0, "mig", 0)
    refused = bob.do("acquire", {"ids": ["GPU-0"], "timeout": 0})
    assert refused["error"] == "AcquireTimeout"
    bob.do("begin", {"ids": ["GPU-0"], "timeout": 30})
    until(lambda: ann.do("waiters", "GPU-0"))
    ann.do("release")
    assert bob.do("result")["members"] == ["GPU-0"]


def test_a_slice_waits_for_the_holder_of_the_card_that_was_whole(sliced, ann, bob):
    sliced.set(0, "mig", 0)
    ann.do("acquire", {"ids": ["GPU-0"], "timeout": 10})
    sliced.set(0, "mig", 1)
    refused = bob.do("acquire", {"ids": ["MIG-0.1"], "timeout": 0})
    assert refused["error"] == "AcquireTimeout"
    assert "slice MIG-0.1 of GPU 0: held by " in refused["told"]
    assert bob.do("weights", "MIG-0.1") == []  # half a slice is given back
    bob.do("begin", {"ids": ["MIG-0.1"], "timeout": 30})
    until(lambda: ann.do("waiters", "GPU-0"))
    ann.do("release")
    assert bob.do("result")["members"] == ["MIG-0.1"]


@pytest.mark.parametrize(
    "visible, seen",
    [
        ("MIG-0.2", {"MIG-0.2"}),
        ("MIG-0.1,MIG-none,GPU-1", {"MIG-0.1"}),
        ("GPU-1", {"GPU-1"}),
        ("0", {"MIG-0.1"}),
    ],
)
def test_the_variable_of_cuda_names_slices_by_uuid_and_a_divided_card_by_its_first(sliced, visible, seen):
    with sliced.requester(CUDA_VISIBLE_DEVICES=visible, CUDA_DEVICE_ORDER="PCI_BUS_ID") as program:
        got = program.do("acquire", {"timeout": 10})
        assert set(got["members"]) == seen
        hidden = {"MIG-0.1", "MIG-0.2", "GPU-1"} - seen
        refused = program.do("acquire", {"ids": sorted(hidden), "timeout": 10})
        assert (refused["error"], "CUDA_VISIBLE_DEVICES hides it" in refused["told"]) == ("ConfigError", True)


def test_a_card_and_its_slice_together_are_refused(ann):
    refused = ann.do("acquire", {"count": 2, "ids": ["GPU-0", "MIG-0.1"], "timeout": 10})
    assert (refused["error"], refused["told"]) == (
        "ConfigError",
        "GPU-0 and its slice MIG-0.1 cannot both be asked for",
    )
    assert refused["hint"]
    assert ann.do("left") == []


@pytest.mark.parametrize(
    "asked", [{"ids": ["MIG-0.1", "MIG-0.2"]}, {"ids": ["MIG-0.1", "GPU-1"]}, {"model": "MIG"}, {}]
)
def test_more_than_one_of_which_one_is_a_slice_is_refused_with_what_to_do(ann, asked):
    refused = ann.do("acquire", {"count": 2, **asked, "timeout": 10})
    assert refused["error"] == "ConfigError"
    assert "it is a slice, and CUDA shows a process no card beside a slice" in refused["told"]
    assert refused["hint"].startswith("ask for one slice for each process, by a request of its own")
    assert ann.do("left") == []


def test_a_mark_on_the_card_keeps_its_slices_from_being_given_out(sliced, ann):
    sliced.set(0, "field 230", 1)
    got = ann.do("acquire", {"timeout": 10})
    assert got["members"] == ["GPU-1"]
    assert ann.do("acquire", {"timeout": 0.5})["error"] == "AcquireTimeout"
