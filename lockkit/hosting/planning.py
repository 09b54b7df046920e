"""The decisions of ``lockkit host``: from the request and the facts to the steps and the obstacles.

All functions are pure. They change nothing, and never plan to overwrite what an administrator wrote: a
difference is an obstacle with a way out, not a step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from lockkit.facts import NOTHING, ClaimInfo
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.redaction import redact

__all__ = [
    "CLOSED",
    "MODE",
    "STORE",
    "UNKNOWN",
    "Folder",
    "Group",
    "HostFacts",
    "Made",
    "Obstacle",
    "OwnStores",
    "Plan",
    "Step",
    "Wanted",
    "belongs_to_store",
    "block_of",
    "folder_of",
    "missing",
    "plan_init",
    "plan_remove",
    "still_in_use",
    "store_url",
    "without",
]

STORE = "host.db"
"""The name of the store's file in the shared folder."""
MODE = 0o2770
"""The mode of the shared folder: the group may write to it, and what is made in it belongs to the group."""
CLOSED = 0o700
"""The mode of the shared folder while it is removed, and after a removal that failed."""
UNKNOWN = -1
"""The number of a group that is about to be made."""
_OWN = re.escape(STORE) + r"(-wal|-shm|-journal|-lock|\.pulses)?(\.[0-9a-f]{12})?"
_BEGIN = "# Added by `lockkit host init`; `lockkit host remove` takes it out again."
_END = "# End of what `lockkit host init` added."
_PAST = {"make": "made", "write": "wrote", "add": "added", "remove": "removed", "take": "took"}
_SHOWN = 3
"""Claims, or names in a folder, that one sentence lists."""

Action = Literal[
    "make_group", "make_folder", "write_settings", "remove_settings", "remove_folder", "remove_group"
]


class Wanted(NamedTuple):
    """The request of the administrator: the group, the folder, the file."""

    group: str
    """The name of a group, or its number."""
    folder: Path
    config: Path
    create_group: bool = False


class Group(NamedTuple):
    """A group of the host. ``members`` are its listed users, not those whose primary group it is."""

    name: str
    gid: int
    members: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name or str(self.gid)


class Folder(NamedTuple):
    """The facts of what is at the path of the shared folder."""

    directory: bool
    uid: int = 0
    gid: int = 0
    mode: int = 0
    group: str = ""
    """The name of its group."""
    content: tuple[str, ...] = ()
    inode: int = 0


class Made(NamedTuple):
    """Everything that ``lockkit host init`` made, as it recorded it before it made it."""

    group: Group | None = None
    folder: str | None = None
    url: str = ""
    config: str | None = None
    block: str = ""
    """The text that was added to the administrator's file."""
    made_config_file: bool = False
    """Whether the administrator's file was made, not only added to."""
    made_config_folder: bool = False
    """Whether the folder of the administrator's file was made."""
    inode: int = 0
    """The folder's inode, to recognise it. The device number may change with each start of the host."""
    gid: int = -1
    """The group that the folder was given, or had."""


class OwnStores(NamedTuple):
    """The stores that users have by default, each of their own, until all share one."""

    sharing: tuple[str, ...] = ()
    """The users with such a store who may use the shared one."""
    others: tuple[str, ...] = ()
    """The users with such a store who are not in the group."""
    uses: tuple[str, ...] = ()
    """Everything that uses such a store now, in words."""


class HostFacts(NamedTuple):
    """The facts of a host on which a plan is based."""

    root: bool = True
    group: Group | None = None
    folder: Folder | None = None
    network: str | None = None
    """The type of the folder's file system if it is a network file system."""
    exposed: Path | None = None
    """A folder on the way to the shared folder or administrator's file that another user could change."""
    config_folder: bool = True
    """Whether the folder of the administrator's file exists."""
    text: str | None = None
    """The administrator's file; None if there is none."""
    settings: Mapping[str, object] = NOTHING
    problems: tuple[str, ...] = ()
    """The errors in the administrator's file as it is."""
    made: Made = Made()
    own: OwnStores = OwnStores()


class Step(NamedTuple):
    """One thing to do. ``text`` says it in words, to be read after "would"."""

    action: Action
    subject: str
    text: str
    detail: str = ""
    """The text to write or to take out, for a step that changes the administrator's file."""

    @property
    def told(self) -> str:
        """The same words once it is done: ``made the folder ...``."""
        verb, _, rest = self.text.partition(" ")
        return f"{_PAST[verb]} {rest}"


class Obstacle(NamedTuple):
    """A reason not to go on, and what to do about it."""

    message: str
    hint: str
    kind: Literal["config", "permission", "held"] = "config"
    claim: ClaimInfo | None = None


class Plan(NamedTuple):
    """The steps, in order; the obstacles, any of which prevents all steps; and remarks on what stays."""

    steps: tuple[Step, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def closes(self) -> bool:
        """Whether programs lose the store or find it no more, so it must have no holders, and be drained."""
        return any(
            step.action == "remove_folder" or (step.action == "remove_settings" and _names_store(step.detail))
            for step in self.steps
        )

    @property
    def moves(self) -> bool:
        """Whether programs get another store by default."""
        return any(step.action == "write_settings" and _names_store(step.detail) for step in self.steps)


def store_url(folder: Path) -> str:
    """The URL of the store in a shared folder."""
    return f"sqlite:{quote(str(folder / STORE))}"


def plan_init(wanted: Wanted, seen: HostFacts, *, force: bool = False) -> Plan:
    """The steps by which all users of a group get one store, and the obstacles.

    Args:
        wanted: The request.
        seen: The facts.
        force: Whether programs may go on in stores of their own, whose locks new programs do not see.
    """
    obstacles = [*_rights(seen), *_place(wanted, seen)]
    steps: list[Step] = []
    if seen.group is None:
        if wanted.create_group and not wanted.group.isdigit():
            steps.append(Step("make_group", wanted.group, f"make the system group {wanted.group}"))
        else:
            obstacles.append(
                Obstacle(
                    f"there is no group {wanted.group!r}",
                    "name a group that the users are in (getent group),"
                    " or let this command make it: --create-group",
                )
            )
    if seen.folder is None:
        text = (
            f"make the folder {wanted.folder}, owned by root,"
            f" of group {seen.group or wanted.group}, with mode {MODE:04o}"
        )
        steps.append(Step("make_folder", str(wanted.folder), text))
    else:
        obstacles += _misfit(wanted, seen, seen.folder)
    missing, wrong = _settings(wanted, seen)
    obstacles += wrong
    if missing:
        verb = "write" if seen.text is None else "add to"
        lines = " and ".join(missing)
        steps.append(
            Step("write_settings", str(wanted.config), f"{verb} {wanted.config}: {lines}", block_of(missing))
        )
    plan = Plan(tuple(steps), tuple(obstacles))
    if not plan.moves:
        return plan
    in_use = still_in_use(seen.own)
    if in_use is not None and not force:
        plan = plan._replace(obstacles=(*plan.obstacles, in_use))
    return plan._replace(remarks=_who_changes(str(seen.group or wanted.group), seen))


def still_in_use(own: OwnStores) -> Obstacle | None:
    """The uses of stores that new programs do not see once all users share one; None if there are none."""
    if not own.uses:
        return None
    return Obstacle(
        f"stores of single users are in use: by {_listed(own.uses)}",
        "new programs lock in the store of all users, and see none of these locks: wait until these programs"
        " have ended (lockkit release ends what was acquired), or end them; --force goes on all the same,"
        " and then two may work at the same time",
        "held",
    )


def _who_changes(group: str, seen: HostFacts) -> tuple[str, ...]:
    """Say what changes for users who have a store of their own, and for all others."""
    own = seen.own
    told = []
    if own.sharing:
        told.append(
            f"new programs of {_listed(own.sharing)} use the store of all users; their own stores stay,"
            " and nothing reads the drains and quarantined cards in them"
        )
    known = f" ({_listed(own.others)} had a store of their own)" if own.others else ""
    told.append(
        f"users who are not in the group {group}{known} get no lock from now on;"
        ' a user who is to keep a store of their own sets url = "sqlite:" and scope = "user"'
        " in ~/.config/lockkit/config.toml"
    )
    if not seen.root:
        told.append("only root sees the programs and stores of other users")
    return tuple(told)


def _rights(seen: HostFacts) -> list[Obstacle]:
    if seen.root:
        return []
    return [Obstacle("only root can set up or remove a store of all users", "use sudo", "permission")]


def _place(wanted: Wanted, seen: HostFacts) -> list[Obstacle]:
    found = []
    if seen.network is not None:
        text = (
            f"{wanted.folder} is on {seen.network}, a network file system,"
            " on which locks do not keep hosts apart"
        )
        found.append(Obstacle(text, "name a local folder: --folder PATH"))
    return found + _exposed(seen, "made", "choose another path: --folder PATH, --config FILE")


def _exposed(seen: HostFacts, what: str, way: str) -> list[Obstacle]:
    if seen.exposed is None:
        return []
    text = (
        f"other users may write to {seen.exposed},"
        f" and could put something else in the place of what is {what} below it"
    )
    return [Obstacle(text, way)]


def _misfit(wanted: Wanted, seen: HostFacts, folder: Folder) -> list[Obstacle]:
    """The differences of an existing folder, which stays as it is, because files in it may be in use."""
    path = wanted.folder
    if not folder.directory:
        return [Obstacle(f"{path} is there already, and is no folder", "name another one: --folder PATH")]
    found = []
    if seen.group is not None and folder.gid != seen.group.gid:
        text = (
            f"{path} is there already, and belongs to the group {folder.group or folder.gid},"
            f" not to {seen.group}"
        )
        found.append(
            Obstacle(
                text,
                f"chgrp -R {seen.group} {path} if nobody uses it, or: --group {folder.group or folder.gid}",
            )
        )
    if folder.mode != MODE:
        text = f"{path} is there already, with mode {folder.mode:04o} instead of {MODE:04o}"
        found.append(Obstacle(text, f"chmod {MODE:04o} {path}, or name another one: --folder PATH"))
    if folder.uid != 0:
        text = f"{path} is there already, and belongs to uid {folder.uid}, not to root"
        found.append(Obstacle(text, f"chown root {path}, or name another one: --folder PATH"))
    return found


def _settings(wanted: Wanted, seen: HostFacts) -> tuple[list[str], list[Obstacle]]:
    """The lines that the administrator's file lacks, and what in it differs."""
    if seen.problems:
        return [], [Obstacle(problem, f"correct {wanted.config} first") for problem in seen.problems]
    missing, wrong = [], []
    url = store_url(wanted.folder)
    if "url" not in seen.settings:
        missing.append(f'url = "{url}"')
    elif not _inside(str(seen.settings["url"]), wanted.folder):
        there = str(seen.settings["url"])
        way = f"to use that store, leave it so; for a store in {wanted.folder} remove that line"
        other = folder_of(there)
        if other is not None:
            way = f"use that folder: --folder {other}; or remove that line"
        wrong.append(Obstacle(f'{wanted.config} has url = "{redact(there)}", not "{url}"', way))
    if "scope" not in seen.settings:
        missing.append('scope = "host"')
    elif seen.settings["scope"] != "host":
        text = f'{wanted.config} has scope = "{seen.settings["scope"]}", not "host"'
        wrong.append(Obstacle(text, "remove that line, and run this command again"))
    return missing, wrong


def folder_of(url: str) -> Path | None:
    """The folder of an embedded store's file; None for another store, or for the file of each user's own."""
    scheme, _, rest = url.partition(":")
    path = unquote(rest.partition("?")[0])
    return Path(path).parent if scheme == "sqlite" and path.startswith("/") else None


def _inside(url: str, folder: Path) -> bool:
    return folder_of(url) == folder


def block_of(lines: Sequence[str]) -> str:
    """The text that is added to the administrator's file, which :func:`without` finds again."""
    return "\n".join([_BEGIN, *lines, _END]) + "\n"


def without(text: str, block: str) -> str | None:
    """The text of a file without an added block; None unless it has the block, word for word, just once."""
    if not block or text.count(block) != 1:
        return None
    before, _, after = text.partition(block)
    return before + after.removeprefix("\n")


def belongs_to_store(name: str) -> bool:
    """Whether a name in the shared folder is one that the store itself makes."""
    return re.fullmatch(_OWN, name) is not None


def missing(seen: HostFacts) -> tuple[str, ...]:
    """Things that were recorded but are not there, in words: an interrupted init records a step first."""
    made = seen.made
    if made == Made():
        return ()
    told = []
    if made.group is not None and (seen.group is None or made.group.gid == UNKNOWN):
        told.append(
            f"the group {made.group.name}"
            if seen.group is None
            else f"the record of the group {made.group.name}"
        )
    if seen.folder is None:
        told.append("the folder")
    if str(seen.settings.get("url", "")) != made.url:
        told.append("the url in the administrator's file")
    return tuple(told)


def plan_remove(seen: HostFacts, holders: Sequence[ClaimInfo], *, force: bool = False) -> Plan:
    """The steps that undo what was made, and no more than that, and the obstacles.

    Args:
        seen: The facts. ``group`` is the group that was made, as it is now.
        holders: The claims in the store that still hold or block, of all namespaces.
        force: Whether to remove the store although they do.
    """
    made = seen.made
    if made == Made():
        return Plan()
    way = (
        "let only root write to it, and run this command again:"
        f" chown root {seen.exposed} && chmod go-w {seen.exposed}"
    )
    obstacles = [*_rights(seen), *_exposed(seen, "removed", way)]
    settings, folder = _settings_back(seen), _folder_away(seen)
    obstacles += [*settings.obstacles, *folder.obstacles]
    steps = [*settings.steps, *folder.steps]
    remarks = [*settings.remarks]
    if made.group is not None and seen.group is not None and seen.group.gid != made.group.gid:
        if made.group.gid == UNKNOWN:
            remarks.append(
                f"the group {seen.group} stays: lockkit host init was interrupted while it made it;"
                f" to remove it: groupdel {seen.group}"
            )
    elif made.group is not None and seen.group is not None:
        if seen.group.members:
            remarks.append(
                f"the group {seen.group} stays: it has members ({_listed(seen.group.members)});"
                f" to remove it: groupdel {seen.group}"
            )
        else:
            steps.append(Step("remove_group", seen.group.name, f"remove the group {seen.group}"))
    plan = Plan(tuple(steps), tuple(obstacles), tuple(remarks))
    if not plan.closes:
        return plan
    if holders and not force:
        plan = plan._replace(obstacles=(*plan.obstacles, _held(holders)))
    if made.folder is None and seen.folder is not None and STORE in seen.folder.content and not force:
        told = (
            f"the store {made.url} stays, drained, because programs may have it open;"
            f" to use it again: lockkit undrain --url {made.url}"
        )
        plan = plan._replace(remarks=(*plan.remarks, told))
    return plan


def _settings_back(seen: HostFacts) -> Plan:
    """The part of a removal that concerns the administrator's file."""
    made = seen.made
    if made.config is None or seen.text is None:
        return Plan()
    rest = without(seen.text, made.block)
    if rest is None and (seen.problems or _named(seen) == folder_of(made.url)):
        text = f"{made.config} still names the store, but what was added to it has been changed since"
        way = f"take the lines from {_BEGIN!r} on out of it, and run this command again"
        return Plan(obstacles=(Obstacle(text, way),))
    if rest is None:
        return Plan(remarks=(f"{made.config} stays as it is: what was added to it has been changed since",))
    whole = made.made_config_file and not rest.strip()
    text = f"remove {made.config}" if whole else f"take the added lines out of {made.config}"
    return Plan((Step("remove_settings", made.config, text, made.block),))


def _folder_away(seen: HostFacts) -> Plan:
    """The part of a removal about the shared folder; in a changed one, no store is opened either."""
    made, folder = seen.made, seen.folder
    path = made.folder or str(folder_of(made.url))
    if folder is None:
        return Plan()
    told, way = "", "set it right, or move it to another place, and run this command again"
    others = sorted(name for name in folder.content if not belongs_to_store(name))
    if not folder.directory:
        told = f"{path} is no folder any more"
    elif made.folder is not None and folder.inode != made.inode:
        told = f"{path} is not the folder that lockkit host init made"
    elif folder.uid != 0:
        told = f"{path} belongs to uid {folder.uid} by now, not to root"
        way = f"see whose it is; if it is still the folder of the store: chown root {path}"
    elif folder.gid != made.gid or folder.mode not in (MODE, CLOSED):
        told = f"{path} has gid {folder.gid} and mode {folder.mode:04o} by now, not {made.gid} and {MODE:04o}"
    elif made.folder is None:
        return Plan()
    elif not _names_store(made.block) and _named(seen) == Path(path):
        told = (
            f"the administrator's file names the store in {path} by a line that lockkit host init did not add"
        )
        way = "take its url out, and run this command again"
    elif others:
        told = f"{path} also contains {_listed(others)}, which the store has not made"
        way = "move that to another place; until then the store and its settings stay"
    if told:
        return Plan(obstacles=(Obstacle(told, way),))
    return Plan((Step("remove_folder", path, f"remove the folder {path} with its store"),))


def _named(seen: HostFacts) -> Path | None:
    """The folder of the store that the administrator's file names."""
    return folder_of(str(seen.settings.get("url", "")))


def _names_store(block: str) -> bool:
    """Whether the added lines are those by which programs find the store."""
    return any(line.startswith("url = ") for line in block.splitlines())


def _held(holders: Sequence[ClaimInfo]) -> Obstacle:
    named = _listed([f"{claim.name!r} by {claim.owner}" for claim in holders])
    noun = "lock is" if len(holders) == 1 else "locks are"
    return Obstacle(
        f"{len(holders)} {noun} still held: {named}",
        "wait until they are released;"
        " --force removes the store all the same, and then two may work at the same time",
        "held",
        holders[0],
    )


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
