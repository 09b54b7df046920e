"""``lockkit run``: the options. The work is done in :mod:`lockkit.cli.guarding`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import click

from lockkit.cli import completing, fitting
from lockkit.cli.base import Command, Session, option
from lockkit.cli.base import command as make
from lockkit.cli.card_options import NUMBER, OF_CARDS, card_options, needs_gpu, of_cards
from lockkit.cli.parameters import CAPACITY, NAME, Duration, File, Number, Remark
from lockkit.cli.suggesting import PROBE, WORDS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["command"]

LOCK = "The lock"
WAIT = "Waiting"
LOSS = "When the lock is lost"
ASKED = "When somebody asks for the lock"
OUT = "Results"


class OnAsk(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """``ignore`` (None), ``term``, or another signal by its name, with or without SIG."""

    name = "signal"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002 (8.1 has no ctx)
        return "[term|ignore|SIGNAL]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        said = str(value).upper().removeprefix("SIG")
        if said == "IGNORE":
            return None
        number = getattr(signal, f"SIG{said}", None)
        if not isinstance(number, signal.Signals) or number in (signal.SIGKILL, signal.SIGSTOP):
            self.fail(
                "must be term, ignore, or the name of a signal that a program can "
                f"handle, such as USR1, not {value!r}",
                param,
                ctx,
            )
        return int(number)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 (click's)
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(word)
            for word in ("ignore", "term", "HUP", "INT", "USR1", "USR2")
            if word.startswith(incomplete)
        ]


class Run(Command):
    """A click command that takes everything after ``--`` as the command to run.

    A name that looks like an option has a ``--`` of its own before it: ``run -- -x -- true``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = [*args]
        if "--" in args:
            at = args.index("--")
            head, words = args[:at], args[at + 1 :]
            if not ctx.resilient_parsing and self._stray(head):
                self._refuse(ctx, args, "only names of locks and options may stand before --")
            if words[1:2] == ["--"] and words[0].startswith("-") and self._split(head)[1] == []:
                head, words = [*head, "--", words[0]], words[2:]  # a name that looks like an option
        else:
            head, words = args, []
            if not ctx.resilient_parsing and not {"-h", "--help"} & set(args):
                problem = "-- is missing before the command"
                if len(self._split(args)[1]) < 2:
                    problem = (
                        "the command is missing, which goes after --"
                        if args
                        else "NAME and the command are missing"
                    )
                self._refuse(ctx, args, problem)
        ctx.meta["lockkit.command"] = words
        rest = super().parse_args(ctx, head)
        taken = [ctx.params[one] for one in ("names", "pool", "gpu")]
        if not ctx.resilient_parsing and not any(taken):
            if PROBE not in ctx.meta:
                needs_gpu(ctx, ctx.params)
            self._refuse(ctx, args, "the name of the lock is missing")
        if not words and not ctx.resilient_parsing:
            ctx.fail("there is no command after --")
        return rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """After ``--`` a command is completed, and then its arguments as files."""
        from click.shell_completion import CompletionItem

        if "--" not in ctx.meta.get(WORDS, ()):
            return super().shell_complete(ctx, incomplete)
        first = not ctx.meta["lockkit.command"]
        return [CompletionItem(incomplete, type="command" if first and "/" not in incomplete else "file")]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "--", "CMD..."]

    def _refuse(self, ctx: click.Context, args: list[str], problem: str) -> None:
        """Fail, and suggest the command line that was probably meant."""
        from lockkit.cli import guessing

        if PROBE not in ctx.meta:
            words = guessing.of_run(ctx, args)
            guessing.keep(ctx, words)
            if words is not None and words[1] == "NAME" and "NAME" not in args:
                problem = "the name of the lock is missing"
        ctx.fail(problem)

    def _stray(self, head: list[str]) -> bool:
        """Whether an unknown option precedes ``--``."""
        left = head
        while left:
            if not left[0].startswith("-"):
                left = left[1:]
                continue
            left = self._split(left)[1]
            if left and left[0].startswith("-"):
                return left[0] != "--"
        return False

    def _split(self, words: list[str]) -> tuple[list[str], list[str]]:
        """Split words into lockkit's options at their beginning, and the rest."""
        rest = click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)
        probe = click.Command(
            "run", params=[*(one for one in self.params if isinstance(one, click.Option)), rest]
        )
        try:
            ctx = probe.make_context(
                "run", list(words), resilient_parsing=True, allow_interspersed_args=False
            )
        except click.UsageError:
            return [], words  # an unknown option, so the command has begun
        left = list(ctx.params["rest"] or ())
        return words[: len(words) - len(left)], left


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a name, or after ``--`` the command, which click takes for one more name."""
    if "--" in ctx.meta.get(WORDS, ()):
        return ctx.command.shell_complete(ctx, incomplete)
    return completing.lockable(ctx, param, incomplete)


@make(
    "run",
    cls=Run,
    examples="""
lockkit run backup -- rsync -a /data /mnt          # waits as long as it takes
lockkit run backup --no-wait -- ./backup.sh        # busy? exit 75 at once
lockkit run report --timeout 10m -E 0 -- ./report  # busy for 10 min? exit 0
lockkit run licence --capacity 4 -- ./simulate     # at most four at a time
lockkit run index --shared -- ./search             # writers: --exclusive
lockkit run nightly --max-hold 2h -- ./nightly     # ended if it takes longer
lockkit run stock orders -- ./move                 # both locks, or none
lockkit run --any cnc1 cnc2 -- ./cut               # one of them
lockkit run --pool cards --count 2 -- ./train      # two members of a pool
lockkit run --gpu 1 --min-free 20GiB -- ./train    # one whole GPU
lockkit run --gpu 1 --gpu-mem 8GiB -- ./evaluate   # a share of one
""",
)
@click.argument("names", type=NAME, nargs=-1, metavar="[NAME]...", shell_complete=_complete)
@option(
    "--any", is_flag=True, section=LOCK, help="Hold one of the locks, not all: whichever can be had first."
)
@option(
    "--pool",
    metavar="POOL",
    shell_complete=completing.pools,
    section=LOCK,
    help="Hold members of [pools.POOL] of the configuration.",
)
@option(
    "--count",
    "wanted",
    type=CAPACITY,
    metavar="K",
    section=LOCK,
    help="Hold K members of the pool.  [default: 1]",
)
@option(
    "--each",
    type=CAPACITY,
    metavar="W",
    section=LOCK,
    help="Take W of each member's capacity.  [default: all of it]",
)
@option(
    "--shared", is_flag=True, section=LOCK, help="Share the lock with others that use --shared (readers)."
)
@option(
    "--exclusive",
    is_flag=True,
    section=LOCK,
    help="Exclude all others on a name used with --shared (writer).",
)
@option(
    "--reason",
    type=Remark(),
    metavar="TEXT",
    section=LOCK,
    help="Why the lock is taken; shown wherever the holder is shown.",
)
@option("--capacity", type=CAPACITY, metavar="N", section=LOCK, help="A semaphore with N permits.")
@option("--permits", type=CAPACITY, metavar="K", section=LOCK, help="Take K permits.  [default: 1]")
@option(
    "--ttl",
    type=Duration(),
    section=LOCK,
    help="How long the lock is kept without a renewal.  [default: 60s; with --gpu on Redis 5m]",
)
@option(
    "--max-hold",
    "--for",
    "max_hold",
    type=Duration(limit=True),
    section=LOCK,
    help="End the command by the time it has held the lock for this long: TERM comes "
    '--kill-after earlier; "never" is allowed.',
)
@option(
    "--min-hold", type=Duration(zero=True), section=LOCK, help="Keep the lock blocked for at least this long."
)
@NUMBER
@card_options
@option(
    "--timeout",
    type=Duration(zero=True, limit=True),
    section=WAIT,
    help='Wait at most this long; "forever" is allowed.  [default: for ever]',
)
@option("--no-wait", is_flag=True, section=WAIT, help="Don't wait; exit 75 if the lock is busy.")
@option(
    "-E",
    "--conflict-exit-code",
    "conflict_code",
    type=Number(0, 255),
    metavar="N",
    section=WAIT,
    help="Exit N instead of 75 (busy) and 124 (timed out).",
)
@option(
    "-q",
    "--quiet",
    is_flag=True,
    section=WAIT,
    help="Print nothing about the wait, nor whose processes the lock keeps apart.",
)
@option(
    "--nested",
    type=click.Choice(["refuse", "reuse"]),
    default="refuse",
    section=WAIT,
    help="If a run or task around this one holds NAME, or GPUs: exit 75, or run under that hold.",
)
@option(
    "--on-lost",
    type=click.Choice(["term", "kill", "warn"]),
    section=LOSS,
    help="Send TERM, then KILL; only KILL; or only print a message.  [default: term]",
)
@option(
    "--kill-after",
    type=Duration(zero=True),
    section=LOSS,
    help="Time that the command has to end after TERM, before it is killed (KILL). It is killed before "
    "anybody else gets the lock.  [default: 10s, at most a third of ttl and max-hold]",
)
@option(
    "--on-ask",
    type=OnAsk(),
    default="ignore",
    section=ASKED,
    help="Send the command TERM, or this SIGNAL; or only say who asks and why.  [default: ignore]",
)
@option("--report", type=File(), metavar="FILE", section=OUT, help="Write a JSON report.")
@option(
    "--metrics-textfile",
    type=File(),
    metavar="FILE.prom",
    section=OUT,
    help="Write the run's metrics for node_exporter's textfile collector.",
)
@click.pass_context
def command(ctx: click.Context, /, session: Session, **options: Any) -> int:
    r"""Run a command while holding the lock NAME, or all of several locks.

    Commands wait in a queue: first come, first served. The lock is released when the command ends, however it
    ends; run exits with the exit code of the command. If the lock is lost, the command is ended before the
    next in the queue gets the lock.

    Several locks are acquired in the order of their names, so that no two runs wait for each other. The other
    options are for each of them.

    The environment of the command describes the lock: LOCKKIT_LEASE_NAME, LOCKKIT_LEASE_TOKEN,
    LOCKKIT_LEASE_FENCE, LOCKKIT_HELD. Of several locks it has LOCKKIT_LEASE_NAMES, of a pool
    LOCKKIT_POOL_MEMBERS, with one on each line.

    With --gpu it waits for any GPUs of this host that will do, in the same kind of queue. GPUs that somebody
    uses without a lock are skipped. The command gets CUDA_VISIBLE_DEVICES, LOCKKIT_GPU_UUIDS,
    LOCKKIT_GPU_INDEXES, and with --gpu-mem LOCKKIT_GPU_MEM (in MiB). A request that no GPUs of this host can
    ever meet exits 78.

    \b
    Exit codes: that of the command, 128 + N if signal N ended it;
      75 busy   124 timed out   76 lock lost   130 Ctrl-C while waiting
      64 usage  69 store down or no permission  78 configuration
      126 cannot execute        127 not found
    """
    from lockkit.cli.guarding import guard
    from lockkit.cli.run_request import Request

    request = Request(command=tuple(ctx.meta["lockkit.command"]), **_checked(ctx, options))
    return guard(session, request)


def _checked(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Convert the options for a :class:`~lockkit.cli.run_request.Request`."""
    _together(ctx, options)
    said = ("shared", "exclusive", "capacity", "permits", "no_wait", "timeout")
    mode = fitting.kind(ctx, **{option: options[option] for option in said})
    no_wait = options["no_wait"] or options["timeout"] == 0
    left = {name: value for name, value in options.items() if name not in ("shared", "exclusive", *OF_CARDS)}
    if options["gpu"] is not None:
        left |= of_cards(options)
    return left | {"mode": mode, "no_wait": no_wait, "permits": options["permits"] or 1}


def _together(ctx: click.Context, options: dict[str, Any]) -> None:
    """Refuse names and options that do not go together.

    Raises:
        click.UsageError: They do not.
    """
    names, pool = options["names"], options["pool"]
    textfile = options["metrics_textfile"]
    if textfile is not None and not textfile.endswith(".prom"):
        ctx.fail(
            "--metrics-textfile needs a name that ends with .prom, because node_exporter reads no other "
            f"file: {textfile}.prom"
        )
    if options["gpu"] is not None:
        if names:
            from lockkit.cli import guessing

            guessing.keep(ctx, guessing.of_run(ctx, ctx.meta[WORDS]))
            ctx.fail(f"--gpu takes the place of the names of locks, such as {names[0]!r}")
        for option in ("pool", "any", "shared", "exclusive", "capacity", "permits"):
            if options[option]:
                ctx.fail(f"--{option} and --gpu cannot be used together")
    else:
        needs_gpu(ctx, options)
    if pool is None:
        for option, said in (("--count", options["wanted"]), ("--each", options["each"])):
            if said is not None:
                ctx.fail(f"{option} needs --pool")
        return
    if names:
        ctx.fail(f"--pool takes the place of the names of locks, such as {names[0]!r}")
    for option in ("any", "shared", "exclusive", "capacity", "permits"):
        if options[option]:
            ctx.fail(f"--{option} and --pool cannot be used together")
