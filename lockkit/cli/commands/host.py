"""``lockkit host``: one store for all users of a group on this host."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lockkit.cli import exits, output
from lockkit.cli.base import Group, Session, option
from lockkit.cli.base import command as make

if TYPE_CHECKING:
    from lockkit.hosting.planning import Plan, Step, Wanted
    from lockkit.sync.client import Client

__all__ = ["command"]

_CODES = {"config": exits.CONFIG, "permission": exits.UNAVAILABLE, "held": exits.BUSY}

command = Group(
    "host",
    help="""Set up one store for all users of a group on this host, or remove it.

    Without a shared store each user has one of their own, and the locks of two users do not keep each other
    out; see: lockkit docs all-users
    """,
    examples="""
sudo lockkit host init --group gpu --dry-run
sudo lockkit host init --group gpu
lockkit host show
sudo lockkit host remove
""",
)


def _path(_ctx: click.Context, _param: click.Parameter, value: Path) -> Path:
    return Path.cwd() / value


_CONFIG = option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/lockkit/config.toml"),
    show_default=True,
    callback=_path,
    help="The administrator's file.",
)
_DRY_RUN = option("--dry-run", is_flag=True, help="Only show what would be done.")


@make(
    "init",
    group=command,
    short="Make one store for all users of GROUP on this host.",
    store=False,
    examples="""
sudo lockkit host init --group gpu --dry-run
sudo lockkit host init --group gpu --create-group
sudo usermod -aG gpu ann      # takes effect when ann next logs in
""",
)
@option(
    "--group",
    required=True,
    metavar="GROUP",
    help="The group whose users share the store: its name or number.",
)
@option("--create-group", is_flag=True, help="Make the group, as a system group, if there is none.")
@option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/lockkit"),
    show_default=True,
    callback=_path,
    help="The folder of the store.",
)
@_CONFIG
@_DRY_RUN
@option(
    "--force",
    is_flag=True,
    help="Go on although programs use stores of their own. Then two may work at the "
    "same time until these have ended.",
)
def _init(
    session: Session,
    *,
    group: str,
    create_group: bool,
    folder: Path,
    config: Path,
    dry_run: bool,
    force: bool,
) -> int:
    """Make a folder that GROUP shares, and have all programs on this host use a store in it.

    The folder gets mode 2770, and the administrator's file the settings url and scope = "host". Existing
    things stay as they are: if a folder or setting differs, nothing is done, and the error says what differs
    and what to do. The command can be run again.

    The store becomes the default. While a program has its user's previous default store open, nothing is
    done.

    Exit code: 0 done, or nothing to do; 69 not root, or a step failed; 75 stores of single users are in use;
    78 something that is there already differs.
    """
    from lockkit.hosting import doing, facts, own_stores, planning

    wanted = planning.Wanted(group, folder, config, create_group)
    seen = facts.collect(wanted)
    own = partial(own_stores.find, config, seen.group, seen.settings.get("state_dir"))
    seen = seen._replace(own=own())
    plan = planning.plan_init(wanted, seen, force=force)
    _refuse(plan, dry_run=dry_run)
    steps = plan.steps if dry_run else doing.initialise(wanted, seen, plan.steps)
    done = _tell(session, steps, dry_run=dry_run)
    # A program opens its store before it looks at the file, so a late one is refused, or is seen here.
    late = planning.still_in_use(own()) if plan.moves and not (dry_run or force) else None
    if late is not None:
        _refuse(
            planning.Plan(obstacles=(late._replace(message=f"all is set up, but {late.message}"),)),
            dry_run=False,
        )
    group = str(seen.group or group)
    members = () if seen.group is None else seen.group.members
    if session.json:
        _write("init", wanted, done, plan, dry_run=dry_run)
        return exits.OK
    listed = f"; now: {', '.join(members)}" if members else ""
    would = "would be" if dry_run else "are"
    output.say(f"users of the store {would} those in the group {group}{listed}")
    output.say(f"to let in USER, who then has to log in again: sudo usermod -aG {group} USER")
    for remark in plan.remarks:
        output.say(remark)
    return exits.OK


@make(
    "remove",
    group=command,
    short="Undo what lockkit host init made, and nothing else.",
    store=False,
    examples="""
sudo lockkit host remove --dry-run
sudo lockkit host remove
""",
)
@_CONFIG
@_DRY_RUN
@option(
    "--force",
    is_flag=True,
    help="Remove the store although locks in it are held, without keeping new locks out. "
    "Then two may work at the same time.",
)
def _remove(session: Session, *, config: Path, dry_run: bool, force: bool) -> int:
    """Undo lockkit host init: its lines in the administrator's file, the folder with the store, the group.

    Nothing else is touched: a group that has members stays, and is named. Nothing is done while locks are
    held, if other files are in the folder, or if the folder or the added lines were changed. Records of locks
    (lockkit status NAME shows them) go with the store.

    Exit code: 0 done, or nothing to do; 69 not root, or a step failed; 75 locks are held; 78 the record of
    init cannot be trusted or read, other users could replace what is removed, other files are in the folder,
    or it or the added lines were changed.
    """
    import lockkit
    from lockkit.config.config import load
    from lockkit.errors import LockkitError
    from lockkit.hosting import doing, facts, held, planning

    made = facts.made_by_init(config)
    folder = Path(made.folder or planning.folder_of(made.url) or "/")
    wanted = planning.Wanted("" if made.group is None else made.group.name, folder, config)
    seen = facts.collect(wanted)

    # Nothing is opened at a path that somebody else could have put there.
    _refuse(planning.plan_remove(seen, [], force=force), dry_run=dry_run)

    settings = load(made.url or None)  # now: its files may be gone later

    def connect(namespace: str | None) -> Client:
        return lockkit.connect(
            config=settings if namespace is None else settings._replace(namespace=namespace)
        )

    def planned() -> Plan:
        found = planning.plan_remove(seen, [], force=force)
        if found.closes and seen.root and not force:
            found = planning.plan_remove(seen, held.holders(made.url, connect))
            if dry_run and found.obstacles and not session.json:
                _tell(session, found.steps, dry_run=True)  # once the locks are released
            _refuse(found, dry_run=dry_run)
        return found

    def begun() -> bool:
        """Whether anything of the store or of the settings is gone, so that the store has to stay drained."""
        try:
            now = facts.collect(wanted)
        except LockkitError:
            return True
        return now.text != seen.text or (now.folder is None) != (seen.folder is None)

    plan = planned()
    closing = held.drained(made.url, connect, keep=begun)
    with closing if plan.closes and not (dry_run or force) else nullcontext():
        if plan.closes and not (dry_run or force):
            plan = planned()  # somebody may have come in before the drain
        done = _tell(
            session, plan.steps if dry_run else doing.remove(config, seen, plan.steps), dry_run=dry_run
        )
    if session.json:
        _write("remove", wanted, done, plan, dry_run=dry_run)
        return exits.OK
    for remark in plan.remarks:
        output.say(remark)
    return exits.OK


@make("show", group=command, store=False, examples="lockkit host show\nlockkit host show --json")
@_CONFIG
def _show(session: Session, *, config: Path) -> int:
    """Show what lockkit host init has made on this host.

    Exit code: 0 it has made something, 1 it has not.
    """
    from lockkit.hosting import facts, planning

    made = facts.made_by_init(config)
    if session.json:
        from lockkit.cli import documents

        output.print_json(documents.Host, made, group=made.group and made.group.name, indent=True)
    elif made == planning.Made():
        output.say("lockkit host init has made nothing on this host")
    else:
        folder = Path(made.folder or planning.folder_of(made.url) or "/")
        seen = facts.collect(planning.Wanted("" if made.group is None else made.group.name, folder, config))
        rows = (
            ("begun, not finished; missing", ", ".join(planning.missing(seen))),
            ("settings in", made.config),
            ("folder", made.folder),
            ("group", made.group),
            ("store", made.url),
        )
        output.say("\n".join(f"{what}: {value}" for what, value in rows if value))
        if planning.missing(seen):
            output.say("to finish it, run lockkit host init again; to undo it: sudo lockkit host remove")
    return exits.FAILED if made == planning.Made() else exits.OK


def _refuse(plan: Plan, *, dry_run: bool) -> None:
    """Raise the obstacles, one a line. A dry run needs no rights; a run without them reports nothing else."""
    rights = [one for one in plan.obstacles if one.kind == "permission"]
    found = [one for one in plan.obstacles if one not in rights] if dry_run else rights or [*plan.obstacles]
    if not found:
        return
    *before, last = found
    told = [f"{one.message} ({one.hint})" for one in before]
    raise exits.CommandFailed(
        "\n".join([*told, last.message]),
        code=_CODES[found[0].kind],
        kind=found[0].kind,
        holder=next((one.claim for one in found if one.claim is not None), None),
        hint=last.hint,
    )


def _tell(session: Session, steps: Iterable[Step], *, dry_run: bool) -> list[Step]:
    """Do the steps, and name each as it is done; a dry run names what would be done."""
    done: list[Step] = []
    for step in steps:
        done.append(step)
        if not session.json:
            output.say(f"would {step.text}" if dry_run else step.told)
    if not done and not session.json:
        output.say("nothing to do")
    return done


def _write(what: str, wanted: Wanted, done: list[Step], plan: Plan, *, dry_run: bool) -> None:
    from lockkit.cli import documents

    kind = documents.HostInit if what == "init" else documents.HostRemove
    output.print_json(kind, plan, config=str(wanted.config), dry_run=dry_run, steps=done, indent=True)
