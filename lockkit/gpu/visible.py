"""The cards that a program may see: ``CUDA_VISIBLE_DEVICES``, read as by CUDA, and written for children.

The variable is about NVIDIA's cards only (UUIDs with ``GPU-`` or ``MIG-``), and hides no other maker's.

CUDA reads the value up to the first entry that names no card, and hides the cards behind that. So these
functions never name a card that CUDA would hide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from lockkit.errors import ConfigError
from lockkit.gpu.devices import Device
from lockkit.gpu.words import OLD_SLICE

__all__ = [
    "ORDER",
    "VISIBLE",
    "By",
    "asked_words",
    "cuda_knows",
    "cuda_shows_alone",
    "cuda_variables",
    "hidden_hint",
    "numbers_are_indices",
    "visible_uuids",
    "why_hidden",
]

By = Literal["index", "uuid"]
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_SLURM = "SLURM_JOB_ID"
_OF_SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
"""Slurm's lists of the indices of its cards on this host: those of the step, then those of the job."""
_BY_BUS = "PCI_BUS_ID"
_OF_CUDA = ("GPU-", "MIG-")
"""The beginnings of the UUIDs of NVIDIA's cards and slices."""


def visible_uuids(environ: Mapping[str, str], devices: Sequence[Device]) -> tuple[str, ...] | None:
    """The UUIDs of the cards and slices that the environment shows to programs; None for all.

    Args:
        environ: The environment of the program.
        devices: All cards and slices of the host.

    Raises:
        ConfigError: The environment numbers different models in CUDA's own order, which only CUDA knows.
    """
    value = environ.get(VISIBLE)
    if value is None:
        variable = _told_by_slurm(environ)
        if variable is None:
            return None
        environ = {ORDER: _BY_BUS}  # Slurm's numbers are those of the device files
        value = _without_ranges(variable[1])
    found: list[str] = []
    of_cuda = [device for device in devices if device.uuid.startswith(_OF_CUDA)]
    for entry in value.split(","):
        uuid = _named(entry.strip(), environ, of_cuda)
        if uuid is None or uuid in found:
            break
        found.append(uuid)
    others = [device.uuid for device in devices if device.uuid and not device.uuid.startswith(_OF_CUDA)]
    return (*found, *others)


def cuda_variables(chosen: Sequence[Device], *, by: str | None = None) -> dict[str, str]:
    """The variables with which a child process sees exactly these cards.

    Args:
        chosen: The cards and slices.
        by: ``index`` or ``uuid``; None for indices, or UUIDs if one of them is a slice, which has no index.

    Raises:
        ConfigError: A slice is to be named by an index, a card is not NVIDIA's, or ``by`` is something else.
    """
    if by not in (None, "index", "uuid"):
        raise ConfigError(f"by must be 'index', 'uuid' or None, not {by!r}")
    other = next((device.uuid for device in chosen if not device.uuid.startswith(_OF_CUDA)), None)
    if other is not None:
        raise ConfigError(
            f"{VISIBLE} is for NVIDIA's cards, and {other} is none of them",
            hint="use the index or UUID in leases.devices with the variable of the card's maker",
        )
    sliced = any(device.parent is not None for device in chosen)
    if by == "index" and sliced:
        raise ConfigError("a slice of a card has no index", hint='name it by its UUID: by="uuid"')
    by_index = by == "index" or (by is None and not sliced)
    names = [str(device.index) if by_index else device.uuid for device in chosen]
    return {VISIBLE: ",".join(names), ORDER: _BY_BUS}


def cuda_knows(chosen: Sequence[Device]) -> bool:
    """Whether CUDA has names for all of these cards: those of other makers have variables of their own."""
    return all(device.uuid.startswith(_OF_CUDA) for device in chosen)


def cuda_shows_alone(device: Device) -> bool:
    """Whether CUDA shows no card beside this one: a MIG slice (NVIDIA's guide, "CUDA Device Enumeration")."""
    return device.parent is not None and cuda_knows([device])


def why_hidden(environ: Mapping[str, str], devices: Sequence[Device] = ()) -> str:
    """Why a card that the environment does not show will not do, in words.

    Args:
        environ: The environment of the program.
        devices: All cards and slices of the host.
    """
    job, value = environ.get(_SLURM), environ.get(VISIBLE)
    listed = _told_by_slurm(environ)
    if value is None and listed is not None:
        return f"{listed[0]}={listed[1]} does not have it, which Slurm sets for job {job}"
    known = {name for device in devices for name in (device.uuid, *device.aliases)}
    entries = [entry.strip() for entry in (value or "").split(",")]
    old = next((entry for entry in entries if entry.startswith(OLD_SLICE) and entry not in known), None)
    if old is not None:
        return (
            f"{VISIBLE} names {old} in the form that drivers before R470 had for slices,"
            " and this host has no such slice: name it by its UUID, as nvidia-smi -L does"
        )
    return f"{VISIBLE} hides it" + (f", which Slurm sets for job {job}" if job else "")


def hidden_hint(environ: Mapping[str, str]) -> str:
    """Advice for a request for which only hidden cards would do."""
    if environ.get(_SLURM):
        return "ask Slurm for more GPUs, or see: lockkit gpu ls"
    return f"unset {VISIBLE}, or see: lockkit gpu ls"


def asked_words(environ: Mapping[str, str]) -> str | None:
    """The cards that the environment leaves to a request, and who set it, in a sentence; None if all."""
    job, value = environ.get(_SLURM), environ.get(VISIBLE)
    if not job:
        # With a forgotten variable, as after `gpu reserve`, a request would wait while other cards are free.
        return None if value is None else f"only the GPUs of {VISIBLE}={value} are asked for"
    listed = _told_by_slurm(environ)
    if value is None and listed is not None:
        return f"only the GPUs that Slurm has given job {job} are asked for ({listed[0]}={listed[1]})"
    if value is None:
        return (
            f"Slurm has given job {job} no GPUs ({VISIBLE} is not set), and does not see what lockkit holds:"
            " ask Slurm for GPUs with --gres=gpu:1"
        )
    return f"only the GPUs that Slurm has given job {job} are asked for ({VISIBLE}={value})"


def _told_by_slurm(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable and value in which Slurm lists its cards; None outside of a job, or without a list."""
    if not environ.get(_SLURM):
        return None
    return next(((name, environ[name]) for name in _OF_SLURM if environ.get(name)), None)


def _without_ranges(listed: str) -> str:
    """A list of Slurm with each range written out: ``0-2,5`` becomes ``0,1,2,5``. Other entries stay."""
    found: list[str] = []
    for entry in listed.split(","):
        first, dash, last = entry.strip().partition("-")
        if dash and all(one.isascii() and one.isdigit() and len(one) < 4 for one in (first, last)):
            found += map(str, range(int(first), int(last) + 1))
        else:
            found.append(entry)
    return ",".join(found)


def numbers_are_indices(environ: Mapping[str, str], devices: Sequence[Device]) -> bool:
    """Whether CUDA's numbers are the indices; its own order is known only for cards of one model.

    Args:
        environ: The environment of the program.
        devices: The cards and slices.
    """
    models = {device.name for device in devices if device.parent is None}
    return environ.get(ORDER) == _BY_BUS or len(models) <= 1


def _named(entry: str, environ: Mapping[str, str], devices: Sequence[Device]) -> str | None:
    """The UUID of the card that an entry names; None if it names none."""
    if entry.isascii() and entry.isdigit():
        whole = [device for device in devices if device.parent is None]
        if not numbers_are_indices(environ, whole):
            raise ConfigError(
                f"{VISIBLE} numbers the cards of this host, which are of different models,"
                " in an order that only CUDA knows",
                hint=f"set {ORDER}={_BY_BUS}, or name the cards by their UUIDs",
            )
        card = next((device for device in whole if device.index == int(entry)), None)
        if card is None or not card.sliced:
            return None if card is None else card.uuid
        return next((device.uuid for device in devices if device.parent == card.uuid), None)
    if not entry.startswith(_OF_CUDA):
        return None
    named = [device.uuid for device in devices if device.uuid.startswith(entry) or entry in device.aliases]
    return named[0] if len(named) == 1 else None
