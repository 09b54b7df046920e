"""The plans of ``lockkit host``: what is done, what stays, and what stands in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lockkit.errors import BackendUnavailable, ConfigError
from lockkit.facts import ClaimInfo, Owner
from lockkit.hosting import doing
from lockkit.hosting.facts import collect, exposed, made_by_init
from lockkit.hosting.planning import (
    Folder,
    Group,
    HostFacts,
    Made,
    OwnStores,
    Wanted,
    belongs_to_store,
    block_of,
    plan_init,
    plan_remove,
    without,
)

GPU = Group("gpu", 700)
FOLDER, CONFIG = Path("/var/lib/lockkit"), Path("/etc/lockkit/config.toml")
WANTED = Wanted("gpu", FOLDER, CONFIG)
RIGHT = Folder(True, 0, 700, 0o2770, "gpu", inode=5)
URL = "sqlite:/var/lib/lockkit/host.db"
BLOCK = block_of([f'url = "{URL}"', 'scope = "host"'])
MADE = Made(GPU, str(FOLDER), URL, str(CONFIG), BLOCK, made_config_file=True, inode=5, gid=700)


def actions(plan):
    return [step.action for step in plan.steps]


def test_a_bare_host_gets_all_of_it():
    plan = plan_init(WANTED._replace(create_group=True), HostFacts())

    assert actions(plan) == ["make_group", "make_folder", "write_settings"]
    assert plan.steps[-1].detail == BLOCK
    assert not plan.obstacles


USED = OwnStores(("ann",), ("eve",), ("pid 7 (python3) of ann",))


def test_a_new_default_waits_for_those_who_use_the_old_one_unless_forced():
    seen = HostFacts(group=GPU, folder=RIGHT, own=USED)

    (obstacle,) = plan_init(WANTED, seen).obstacles

    assert (obstacle.kind, "by pid 7 (python3) of ann" in obstacle.message) == ("held", True)
    assert not plan_init(WANTED, seen, force=True).obstacles
    told = plan_init(WANTED, seen._replace(own=USED._replace(uses=()))).remarks
    assert [who in one for who, one in zip(("of ann use", "(eve had"), told, strict=True)] == [True, True]


@pytest.mark.parametrize("lines", [{"url": URL, "scope": "host"}, {"url": URL}])
def test_stores_of_single_users_are_in_nobodys_way_where_the_default_stays(lines):
    seen = HostFacts(group=GPU, folder=RIGHT, text="", settings=lines, own=USED)

    assert not plan_init(WANTED, seen).obstacles + plan_init(WANTED, seen).remarks


def test_what_is_right_already_needs_no_step():
    seen = HostFacts(group=GPU, folder=RIGHT, text="", settings={"url": URL, "scope": "host"})

    assert plan_init(WANTED, seen) == plan_init(WANTED, seen._replace(made=MADE))
    assert not plan_init(WANTED, seen).steps + plan_init(WANTED, seen).obstacles


def test_another_file_in_the_shared_folder_will_do_as_well():
    seen = HostFacts(
        group=GPU, folder=RIGHT, text="", settings={"url": "sqlite:/var/lib/lockkit/jobs.db?synchronous=full"}
    )

    assert plan_init(WANTED, seen).steps[0].detail == block_of(['scope = "host"'])


@pytest.mark.parametrize(
    "change, told, way",
    [
        ({"group": None}, "there is no group 'gpu'", "--create-group"),
        ({"root": False}, "only root", "sudo"),
        ({"network": "nfs4"}, "nfs4, a network file system", "--folder"),
        ({"exposed": Path("/srv")}, "other users may write to /srv", "--folder"),
        ({"folder": Folder(directory=False)}, "is no folder", "--folder"),
        (
            {"folder": RIGHT._replace(gid=5, group="tty")},
            "belongs to the group tty, not to gpu",
            "--group tty",
        ),
        ({"folder": RIGHT._replace(mode=0o755)}, "mode 0755 instead of 2770", "chmod 2770"),
        ({"folder": RIGHT._replace(uid=1000)}, "belongs to uid 1000", "chown root"),
        (
            {"settings": {"url": "redis://:secret@cache/1"}},
            'has url = "redis://:***@cache/1"',
            "remove that line",
        ),
        ({"settings": {"url": "sqlite:/srv/locks/x.db"}}, "/srv/locks/x.db", "--folder /srv/locks"),
        ({"settings": {"scope": "fleet"}}, 'scope = "fleet", not "host"', "remove that line"),
        ({"problems": ("not valid TOML",)}, "not valid TOML", "correct"),
    ],
)
def test_what_differs_is_named_with_a_way_out_and_never_overwritten(change, told, way):
    seen = HostFacts(group=GPU, folder=RIGHT, text="", settings={"url": URL, "scope": "host"})._replace(
        **change
    )

    (obstacle,) = plan_init(WANTED, seen).obstacles

    assert told in obstacle.message
    assert way in obstacle.hint
    assert "secret" not in obstacle.message + obstacle.hint
    assert not [step for step in plan_init(WANTED, seen).steps if step.action == "make_folder"]


def test_all_that_differs_is_named_at_once():
    seen = HostFacts(
        group=GPU, folder=RIGHT._replace(mode=0o700), text="", settings={"url": "etcd://a", "scope": "fleet"}
    )

    assert len(plan_init(WANTED, seen).obstacles) == 3


@pytest.mark.parametrize("before", ["", "ttl = '1m'\n", "# mine\n[profiles.x]\nurl = 'memory:'\n"])
def test_the_added_lines_are_taken_out_again_to_the_byte(before):
    assert without(BLOCK + (f"\n{before}" if before else ""), BLOCK) == before


@pytest.mark.parametrize("after", [BLOCK.replace("host.db", "other.db"), BLOCK + BLOCK, ""])
def test_lines_that_were_changed_are_not_found(after):
    assert without(after, BLOCK) is None


def test_everything_that_was_made_is_removed():
    seen = HostFacts(
        group=GPU, folder=RIGHT._replace(content=("host.db", "host.db-wal")), text=BLOCK, made=MADE
    )

    assert actions(plan_remove(seen, [])) == ["remove_settings", "remove_folder", "remove_group"]


def test_only_what_was_made_is_removed():
    seen = HostFacts(
        group=GPU,
        folder=RIGHT,
        text=f'ttl = "1m"\n{BLOCK}',
        made=MADE._replace(group=None, folder=None, made_config_file=False),
    )

    (step,) = plan_remove(seen, []).steps

    assert (step.action, step.detail) == ("remove_settings", BLOCK)
    assert "take the added lines out" in step.text
    assert plan_remove(seen._replace(made=Made()), []).steps == ()


@pytest.mark.parametrize(
    "change, told",
    [
        ({"text": BLOCK.replace("host.db", "mine.db")}, "has been changed since"),
        ({"group": GPU._replace(members=("ann",))}, "the group gpu stays: it has members (ann)"),
    ],
)
def test_what_others_have_changed_stays_and_is_named(change, told):
    seen = HostFacts(group=GPU, folder=RIGHT, text=BLOCK, made=MADE)._replace(**change)

    plan = plan_remove(seen, [])

    assert told in plan.remarks[0]
    assert len(plan.steps) == 2


def test_nothing_is_removed_while_files_of_others_are_in_the_folder():
    seen = HostFacts(
        group=GPU, folder=RIGHT._replace(content=("host.db", "thesis.tex")), text=BLOCK, made=MADE
    )

    (obstacle,) = plan_remove(seen, [], force=True).obstacles

    assert "also contains thesis.tex" in obstacle.message
    assert obstacle.kind == "config"


CHANGED = BLOCK.replace("scope", 'namespace = "prod"\nscope')


@pytest.mark.parametrize(
    "change, told",
    [
        ({"text": CHANGED, "settings": {"url": URL}}, "still names the store"),
        ({"text": "url = ", "problems": ("not valid TOML",)}, "still names the store"),
        (
            {"text": "", "settings": {"url": URL}, "made": MADE._replace(config=None, block="")},
            "by a line that lockkit host init did not add",
        ),
        ({"folder": RIGHT._replace(inode=6)}, "is not the folder that lockkit host init made"),
        ({"folder": RIGHT._replace(gid=701)}, "gid 701"),
        ({"folder": RIGHT._replace(mode=0o755)}, "mode 0755"),
        ({"folder": Folder(directory=False)}, "is no folder any more"),
        (
            {"folder": RIGHT._replace(uid=1000), "made": MADE._replace(folder=None)},
            "/var/lib/lockkit belongs to uid 1000",
        ),
    ],
)
def test_nothing_is_removed_and_no_store_opened_where_it_is_not_as_it_was_set_up(change, told):
    seen = HostFacts(group=GPU, folder=RIGHT, text=BLOCK, settings={"url": URL}, made=MADE)._replace(**change)

    obstacles = plan_remove(seen, [], force=True).obstacles

    assert [told in one.message for one in obstacles] == [True]


def test_a_folder_that_a_removal_closed_can_be_removed_by_the_next_one():
    seen = HostFacts(folder=RIGHT._replace(mode=0o700), made=MADE._replace(config=None, block=""))

    assert actions(plan_remove(seen, [])) == ["remove_folder"]


@pytest.mark.parametrize(
    "made, block, closes",
    [
        (MADE, BLOCK, True),
        (MADE._replace(folder=None), BLOCK, True),
        (MADE._replace(folder=None), block_of(['scope = "host"']), False),
        (MADE._replace(config=None), "", True),
        (MADE._replace(folder=None, config=None), "", False),
    ],
)
def test_a_store_is_closed_if_it_or_the_lines_that_name_it_are_removed(made, block, closes):
    holder = ClaimInfo("backup", "0123456789ab", "HELD", Owner("ann", "box", 4711), 1, 0)
    seen = HostFacts(group=GPU, folder=RIGHT, text=block, made=made._replace(block=block))

    plan = plan_remove(seen, [holder])

    assert (plan.closes, bool(plan.obstacles)) == (closes, closes)


def test_a_group_that_was_only_about_to_be_made_is_named_but_not_removed():
    seen = HostFacts(group=GPU, made=Made(group=Group("gpu", -1)))

    plan = plan_remove(seen, [])

    assert not plan.steps
    assert "was interrupted while it made it; to remove it: groupdel gpu" in plan.remarks[0]


def test_a_group_is_recorded_before_it_is_made(tmp_path, monkeypatch):
    wanted = Wanted("no-such-group", tmp_path / "locks", tmp_path / "config.toml", create_group=True)
    seen = collect(wanted)
    recorded = []

    def killed(*_words):
        recorded.append(made_by_init(wanted.config).group)
        raise KeyboardInterrupt

    monkeypatch.setattr(doing, "_command", killed)
    with pytest.raises(KeyboardInterrupt):
        list(doing.initialise(wanted, seen, plan_init(wanted, seen).steps))

    assert recorded == [Group("no-such-group", -1)]


def test_another_group_of_that_name_is_not_removed():
    seen = HostFacts(group=GPU._replace(gid=701), text=BLOCK, made=MADE)

    assert actions(plan_remove(seen, [])) == ["remove_settings"]


def test_nothing_is_removed_below_a_folder_in_which_another_user_could_replace_it():
    seen = HostFacts(exposed=Path("/srv"), group=GPU, folder=RIGHT, text=BLOCK, made=MADE)

    (obstacle,) = plan_remove(seen, [], force=True).obstacles

    assert "other users may write to /srv" in obstacle.message
    assert "chmod go-w /srv" in obstacle.hint


def test_a_folder_that_somebody_else_owns_by_now_is_not_removed():
    (obstacle,) = plan_remove(HostFacts(folder=RIGHT._replace(uid=1000), text=BLOCK, made=MADE), []).obstacles

    assert "belongs to uid 1000 by now, not to root" in obstacle.message
    assert "chown root" in obstacle.hint


def test_a_store_whose_locks_are_held_is_removed_only_by_force():
    holder = ClaimInfo("backup", "0123456789ab", "HELD", Owner("ann", "box", 4711, program="rsync"), 1, 0)
    seen = HostFacts(group=GPU, folder=RIGHT, text=BLOCK, made=MADE)

    (obstacle,) = plan_remove(seen, [holder]).obstacles

    assert obstacle.message == "1 lock is still held: 'backup' by ann@box pid 4711 (rsync)"
    assert (obstacle.kind, obstacle.claim) == ("held", holder)
    assert not plan_remove(seen, [holder], force=True).obstacles


@pytest.mark.parametrize(
    "name, own",
    [
        ("host.db", True),
        ("host.db-wal", True),
        ("host.db-shm", True),
        ("host.db.pulses", True),
        ("host.db.0123456789ab", True),
        ("host.db.pulses.0123456789ab", True),
        ("host.db.bak", False),
        ("hostxdb", False),
        ("host.db-wal2", False),
        ("jobs.db", False),
    ],
)
def test_the_files_of_the_store_are_told_from_those_of_others(name, own):
    assert belongs_to_store(name) is own


# -- the facts and the doing, on real files


@pytest.fixture
def strangers():
    """The uid of another user, to whom root can give files."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give files to another user")
    return 61201


def test_a_record_that_another_user_could_have_written_is_refused(tmp_path, strangers):
    record = tmp_path / "host-init.json"
    record.write_text('{"v": 1, "folder": "/home/ann/locks"}')
    assert made_by_init(tmp_path / "config.toml").folder == "/home/ann/locks"

    record.chmod(0o664)
    with pytest.raises(ConfigError, match="may be written by a user who is not root"):
        made_by_init(tmp_path / "config.toml")
    record.chmod(0o644)
    os.chown(record, strangers, -1)
    with pytest.raises(ConfigError, match="may be written by a user who is not root"):
        made_by_init(tmp_path / "config.toml")
    record.rename(tmp_path / "elsewhere")
    record.symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="cannot read"):
        made_by_init(tmp_path / "config.toml")


def test_a_link_leads_to_no_place_in_which_others_may_write(tmp_path, strangers):
    theirs = tmp_path / "theirs"
    (theirs / "ours").mkdir(parents=True)
    os.chown(theirs, strangers, -1)
    (tmp_path / "way").symlink_to(theirs / "ours")
    (tmp_path / "config.toml").symlink_to(theirs / "config.toml")

    assert exposed(tmp_path / "config.toml") == theirs
    assert exposed(tmp_path / "way" / "locks") == theirs
    assert collect(Wanted("root", tmp_path / "locks", tmp_path / "config.toml")).exposed == theirs


def test_in_a_sticky_folder_only_what_is_there_already_and_belongs_to_root_is_a_way(tmp_path, strangers):
    tmp_path.chmod(0o1777)
    (tmp_path / "ours").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "ours")

    assert exposed(tmp_path / "ours" / "new" / "locks") is None
    assert exposed(tmp_path / "link" / "locks") is None
    assert exposed(tmp_path / "new" / "locks") == tmp_path
    assert exposed(tmp_path / "config.toml") == tmp_path
    os.chown(tmp_path / "link", strangers, -1, follow_symlinks=False)
    assert exposed(tmp_path / "link" / "locks") == tmp_path


def test_a_parent_that_another_user_makes_meanwhile_gets_no_store(tmp_path, strangers):
    wanted = Wanted("root", tmp_path / "new" / "locks", tmp_path / "etc" / "config.toml")
    seen = collect(wanted)
    plan = plan_init(wanted, seen)
    assert not plan.obstacles
    tmp_path.chmod(0o1777)
    (tmp_path / "new").mkdir()
    os.chown(tmp_path / "new", strangers, -1)

    with pytest.raises(BackendUnavailable, match="other users may write to"):
        list(doing.initialise(wanted, seen, plan.steps))

    assert list((tmp_path / "new").iterdir()) == []


def test_a_program_for_groups_that_hangs_is_an_error_in_words(tmp_path, monkeypatch):
    (tmp_path / "groupadd").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "groupadd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(doing, "_SECONDS", 0.2)
    wanted = Wanted("gpu", tmp_path / "locks", tmp_path / "config.toml", create_group=True)

    with pytest.raises(BackendUnavailable, match=r"groupadd did not end within 0\.2 s"):
        list(doing.initialise(wanted, HostFacts(), plan_init(wanted, HostFacts()).steps))
