"""The options of ``lockkit run`` that are about GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lockkit.cli import completing
from lockkit.cli.base import option
from lockkit.cli.parameters import Duration, File, Number, Size
from lockkit.cli.suggesting import WORDS
from lockkit.config.settings import SETTINGS
from lockkit.hooks import of_gpus
from lockkit.notes.members import MOST

__all__ = ["NUMBER", "OF_CARDS", "SIMULATE", "card_options", "needs_gpu", "of_cards"]

SECTION = "GPUs"
NUMBER = option(
    "--gpu",
    type=Number(1, MOST),
    metavar="N",
    section=SECTION,
    help="Hold N GPUs of this host, and show the command only those. A MIG slice is given only for N = 1.",
)
_OPTIONS = (
    option(
        "--min-free", type=Size(), section=SECTION, help="Only GPUs with so much free memory, such as 20GiB."
    ),
    option(
        "--gpu-mem",
        "memory",
        type=Size(),
        section=SECTION,
        help="Take so much of each GPU's memory, and share the rest.  [default: whole GPUs]",
    ),
    option(
        "--gpu-name",
        "model",
        metavar="TEXT",
        shell_complete=completing.models,
        section=SECTION,
        help="Only models with TEXT in their name, or that match it with * in it.",
    ),
    option(
        "--gpu-id",
        "ids",
        multiple=True,
        metavar="ID",
        shell_complete=completing.usable_cards,
        section=SECTION,
        help="Only this GPU: a UUID, or an index as lockkit gpu ls has it. May be repeated.",
    ),
    option(
        "--settle",
        type=Duration(zero=True),
        section=SECTION,
        help="How long memory of the last holder may drain, at the head of the queue.  [default: 0]",
    ),
    option(
        "--allow-busy",
        is_flag=True,
        section=SECTION,
        help="Also take GPUs that somebody uses without a lock.",
    ),
    option(
        "--affinity/--no-affinity",
        default=None,
        section=SECTION,
        help="Whether the GPUs that I had last come first.  [default: affinity]",
    ),
    option(
        "--accept-dirty",
        is_flag=True,
        section=SECTION,
        help="Also take GPUs of which the last holder left memory in use.",
    ),
    option(
        "--preflight",
        is_flag=True,
        section=SECTION,
        help="Compute on each GPU before the command starts; take another one if "
        "it fails. Needs torch or cupy.",
    ),
    option(
        "--preflight-python",
        type=File(),
        metavar="PATH",
        section=SECTION,
        help="The same, with the torch or cupy of this Python.  [default: lockkit's own]",
    ),
    option(
        "--visible",
        type=click.Choice(["uuid", "index"]),
        section=SECTION,
        help="What CUDA_VISIBLE_DEVICES has.  [default: index; uuid for slices]",
    ),
    option(
        "--private",
        is_flag=True,
        section=SECTION,
        help="The store may keep only my jobs apart: nobody else uses these GPUs.",
    ),
    option(
        "--gpu-sim",
        "simulate",
        type=Number(0, SETTINGS["gpu_simulate"].most),
        metavar="N",
        section=SECTION,
        help="Simulate N GPUs in place of those of the host; 0: none.  [default: gpu.simulate]",
    ),
)
SIMULATE = option(
    "--gpu-sim",
    "simulate",
    type=Number(0, SETTINGS["gpu_simulate"].most),
    metavar="N",
    help="Simulate N GPUs in place of those of the host; 0: none.  [default: the setting gpu.simulate]",
)
"""The option of the commands of ``lockkit gpu``."""
OF_CARDS = {
    "min_free": "--min-free",
    "memory": "--gpu-mem",
    "model": "--gpu-name",
    "ids": "--gpu-id",
    "settle": "--settle",
    "allow_busy": "--allow-busy",
    "affinity": "--affinity",
    "accept_dirty": "--accept-dirty",
    "preflight": "--preflight",
    "preflight_python": "--preflight-python",
    "visible": "--visible",
    "private": "--private",
    "simulate": "--gpu-sim",
}
"""The options that need ``--gpu``: the parameter of each, and how it is written."""


def card_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, all but the number of cards."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function


def needs_gpu(ctx: click.Context, options: dict[str, Any]) -> None:
    """Refuse options about GPUs on a command line without ``--gpu``, with the line that was meant.

    Raises:
        click.UsageError: There is one.
    """
    for option_, flag in OF_CARDS.items():
        given = options[option_]
        if given is None or given == () or (given is False and option_ != "affinity"):  # 0 is given
            continue
        from lockkit.cli import guessing

        written = f"--no-{flag.removeprefix('--')}" if given is False else flag
        guessing.keep(ctx, guessing.of_run(ctx, ctx.meta[WORDS]))
        instead = ", in place of the name" if options["names"] else ""
        ctx.fail(f"{written} needs --gpu: add --gpu 1{instead}")


def of_cards(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are about GPUs, and the pool of this host's."""
    from lockkit.cli.run_request import CardOptions
    from lockkit.values.identity import this_process

    given = {name: options[name] for name in OF_CARDS} | {"settle": options["settle"] or 0.0}
    given["affinity"] = options["affinity"] is not False
    host = this_process().host
    pool = of_gpus("host_pool")(of_gpus("simulated")(host) if options["simulate"] else host)
    return {"gpu": CardOptions(options["gpu"], **given), "pool": pool}
