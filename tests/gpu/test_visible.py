"""``CUDA_VISIBLE_DEVICES``: read as CUDA reads it, and never as more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.errors import ConfigError
from lockkit.gpu.devices import Device
from lockkit.gpu.visible import asked_words, cuda_variables, visible_uuids, why_hidden

CARDS = [
    Device("GPU-aa11", 0, "H100"),
    Device("GPU-aa22", 1, "H100"),
    Device("GPU-bb33", 2, "H100", sliced=True),
]
SLICES = [
    Device("MIG-cc1", 2, "H100 MIG 1g", parent="GPU-bb33"),
    Device("MIG-cc2", 2, "H100 MIG 1g", parent="GPU-bb33"),
]
ALL = [*CARDS, *SLICES]
EVERY = tuple(device.uuid for device in ALL)


@pytest.mark.parametrize(
    "value, found",
    [
        ("0", ("GPU-aa11",)),
        ("1,0", ("GPU-aa22", "GPU-aa11")),
        (" 1 , 0 ", ("GPU-aa22", "GPU-aa11")),
        ("2", ("MIG-cc1",)),  # of a divided card CUDA shows the first slice
        ("GPU-aa11,MIG-cc2", ("GPU-aa11", "MIG-cc2")),
        ("GPU-bb", ("GPU-bb33",)),  # a beginning that is unique
        ("GPU-aa", ()),  # a beginning that is not
        ("", ()),
        ("NoDevFiles", ()),
        ("-1", ()),
        ("0,-1,1", ("GPU-aa11",)),  # what follows an unknown entry is hidden
        ("0,9,1", ("GPU-aa11",)),
        ("0,GPU-zz,1", ("GPU-aa11",)),
        ("0,0,1", ("GPU-aa11",)),
        ("all", ()),
    ],
)
def test_it_is_read_up_to_the_first_entry_that_names_no_card(value, found):
    assert visible_uuids({"CUDA_VISIBLE_DEVICES": value}, ALL) == found


def test_without_it_every_card_is_seen():
    assert visible_uuids({}, ALL) is None


def test_numbers_of_different_models_mean_something_only_in_the_order_of_the_bus():
    mixed = [Device("GPU-a", 0, "H100"), Device("GPU-b", 1, "A100")]
    with pytest.raises(ConfigError, match="in an order that only CUDA knows") as caught:
        visible_uuids({"CUDA_VISIBLE_DEVICES": "0"}, mixed)
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in str(caught.value.hint)
    assert visible_uuids({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, mixed) == (
        "GPU-a",
    )
    assert visible_uuids({"CUDA_VISIBLE_DEVICES": "GPU-b"}, mixed) == ("GPU-b",)


@given(value=st.text("0129,-GPUMIabc ", max_size=12))
def test_it_never_names_a_card_that_there_is_not(value):
    found = visible_uuids({"CUDA_VISIBLE_DEVICES": value}, ALL)
    assert set(found) <= set(EVERY)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "chosen, by, value",
    [
        (CARDS[:2], None, "0,1"),
        (CARDS[1::-1], None, "1,0"),
        (CARDS[:2], "uuid", "GPU-aa11,GPU-aa22"),
        (SLICES, None, "MIG-cc1,MIG-cc2"),
        ([CARDS[0], SLICES[0]], None, "GPU-aa11,MIG-cc1"),
        ([], None, ""),
    ],
)
def test_a_child_process_sees_exactly_the_cards(chosen, by, value):
    written = cuda_variables(chosen, by=by)
    assert written == {"CUDA_VISIBLE_DEVICES": value, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert visible_uuids(written, ALL) == tuple(device.uuid for device in chosen)


def test_a_slice_has_no_number():
    with pytest.raises(ConfigError, match=r'no index .*by="uuid"'):
        cuda_variables(SLICES, by="index")


AMD = Device("AMD-dd44", 0, "MI300X")


def test_the_variable_says_nothing_about_cards_of_another_maker():
    assert visible_uuids({"CUDA_VISIBLE_DEVICES": "0"}, [AMD, *ALL]) == ("GPU-aa11", "AMD-dd44")
    assert visible_uuids({"CUDA_VISIBLE_DEVICES": "AMD-dd44"}, [AMD, *ALL]) == ("AMD-dd44",)


@pytest.mark.parametrize("by", [None, "index", "uuid"])
def test_a_card_of_another_maker_is_never_shown_as_one_of_nvidia(by):
    with pytest.raises(ConfigError, match="AMD-dd44 is none of them"):
        cuda_variables([CARDS[0], AMD], by=by)


# -- Slurm


@pytest.mark.parametrize(
    "environ, told",
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "only the GPUs of CUDA_VISIBLE_DEVICES=0 are asked for"),
        (
            {"SLURM_JOB_ID": "4711", "CUDA_VISIBLE_DEVICES": "0,1"},
            "only the GPUs that Slurm has given job 4711 are asked for (CUDA_VISIBLE_DEVICES=0,1)",
        ),
        (
            {"SLURM_JOB_ID": "4711"},
            (
                "Slurm has given job 4711 no GPUs (CUDA_VISIBLE_DEVICES is not set), "
                "and does not see what lockkit holds: ask Slurm for GPUs with --gres=gpu:1"
            ),
        ),
    ],
)
def test_the_part_of_the_environment_in_the_choice_is_told(environ, told):
    assert asked_words(environ) == told


@pytest.mark.parametrize(
    "more, seen, told",
    [
        ({"SLURM_JOB_GPUS": "1"}, ("GPU-aa22",), "SLURM_JOB_GPUS=1"),
        ({"SLURM_JOB_GPUS": "0-1", "SLURM_STEP_GPUS": "0"}, ("GPU-aa11",), "SLURM_STEP_GPUS=0"),
        ({"SLURM_JOB_GPUS": "0-1"}, ("GPU-aa11", "GPU-aa22"), "SLURM_JOB_GPUS=0-1"),
        ({"SLURM_JOB_GPUS": "nonsense"}, (), "SLURM_JOB_GPUS=nonsense"),
        ({"SLURM_JOB_GPUS": "1", "CUDA_VISIBLE_DEVICES": "0"}, ("GPU-aa11",), "CUDA_VISIBLE_DEVICES=0"),
    ],
)
def test_the_list_of_slurm_counts_where_cuda_has_no_variable(more, seen, told):
    environ = {"SLURM_JOB_ID": "77", **more}
    assert visible_uuids(environ, ALL) == seen
    assert asked_words(environ) == f"only the GPUs that Slurm has given job 77 are asked for ({told})"
    assert why_hidden(environ).startswith(told.split("=")[0])
    assert why_hidden(environ).endswith("which Slurm sets for job 77")
    assert visible_uuids(more | {"SLURM_JOB_ID": ""}, ALL) == (
        seen if "CUDA_VISIBLE_DEVICES" in more else None
    )


def test_the_old_name_of_a_slice_shows_nothing_and_the_refusal_names_it():
    environ = {"CUDA_VISIBLE_DEVICES": "MIG-GPU-bb33/1/0"}
    assert visible_uuids(environ, ALL) == ()
    assert "names MIG-GPU-bb33/1/0 in the form that drivers before R470" in why_hidden(environ, ALL)


def test_the_old_name_of_a_slice_that_the_driver_numbers_shows_it():
    slices = [one._replace(aliases=(f"MIG-GPU-bb33/{n}/0",)) for n, one in enumerate(ALL) if one.parent]
    environ = {"CUDA_VISIBLE_DEVICES": f"{slices[0].aliases[0]}, MIG-GPU-bb33/99/0,{slices[-1].uuid}"}
    devices = [one for one in ALL if not one.parent] + slices
    assert visible_uuids(environ, devices) == (slices[0].uuid,)
    assert "names MIG-GPU-bb33/99/0 in the form" in why_hidden(environ, devices)
    assert (
        why_hidden({"CUDA_VISIBLE_DEVICES": slices[0].aliases[0]}, devices) == "CUDA_VISIBLE_DEVICES hides it"
    )


def test_a_card_that_slurm_hides_is_told_as_such():
    assert why_hidden({"CUDA_VISIBLE_DEVICES": "0"}) == "CUDA_VISIBLE_DEVICES hides it"
    assert (
        why_hidden({"SLURM_JOB_ID": "4711"}) == "CUDA_VISIBLE_DEVICES hides it, which Slurm sets for job 4711"
    )
