"""``lockkit host``: made, used by two real users and removed, with the real paths in a mount namespace."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lockkit.cli.main import run

GROUP, ANN, BOB, EVE = 61200, 61201, 61202, 61203
"""Numbers that no account has."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become two other users")


def _works(*line):
    try:
        return subprocess.run(line, capture_output=True, check=False, timeout=20).returncode == 0
    except OSError:
        return False


def _unshare():
    """The command for one's own mounts: as root, else in a user namespace, with several users if possible."""
    if os.geteuid() == 0:
        return ["unshare", "-m"]
    several = ["unshare", "-m", "--map-root-user", "--map-auto"]
    return several if _works(*several, "true") else ["unshare", "-rm"]


UNSHARE = _unshare()
private_root = pytest.mark.skipif(
    not _works(*UNSHARE, "mount", "--bind", "/var/tmp", "/mnt"),
    reason="this machine lets nobody make a mount namespace",
)
two_users = pytest.mark.skipif(
    not _works(*UNSHARE, "setpriv", f"--reuid={ANN}", f"--regid={GROUP}", "--clear-groups", "true"),
    reason="needs root to become two other users, or a user namespace with several (newuidmap, /etc/subuid)",
)

STORY = """
import contextlib, json, os, subprocess, sys

def lockkit(*words, env=None):
    line = [sys.executable, "-m", "lockkit", *words]
    done = subprocess.run(
        line, capture_output=True, text=True, cwd="/", env=os.environ | (env or {}), timeout=60)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}

def there(path):
    return os.path.exists(path)
"""
USER = """
import os, sys
import lockkit, lockkit.gpu

uid, gid, warm = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
# Everything is imported before the rights are dropped: other users may not be able to read this environment.
client = lockkit.connect(f"sqlite:{warm}/first/x.db", state_dir=f"{warm}/first", scope="user")
with client, client.lock("x").acquire():
    client.inspect("x")
    lockkit.gpu.pool(client, simulate=1).acquire(timeout=0).release()
os.setgroups([gid] if gid else [])
os.setgid(uid)
os.setuid(uid)
os.environ.setdefault("LOCKKIT_STATE_DIR", f"{warm}/state-{uid}")
client = lockkit.connect()
leases = []
for row in sys.stdin:
    try:
        print(eval(row), flush=True)
    except lockkit.LockkitError as error:
        print(type(error).__name__, error, flush=True)
"""


@pytest.fixture
def world(tmp_path):
    """Runs a script that has /etc and /var/lib to itself, and returns what it has put into ``told``."""
    etc, var, warm = (
        tmp_path / "etc",
        tmp_path / "var",
        Path(tempfile.mkdtemp(prefix="lockkit-", dir="/var/tmp")),
    )
    etc.mkdir()
    var.mkdir()
    for name in ("group", "gshadow", "passwd", "shadow", "login.defs", "nsswitch.conf"):
        if os.access(f"/etc/{name}", os.R_OK):
            shutil.copy(f"/etc/{name}", etc)
    users = (etc / "passwd").read_text()  # of whose stores this test knows nothing
    (etc / "passwd").write_text(
        re.sub(r"^((?:[^:]*:){5})[^:]*", r"\1/nonexistent", users, flags=re.MULTILINE)
    )
    warm.chmod(0o1777)
    (tmp_path / "user.py").write_text(USER)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("LOCKKIT_", "XDG_"))}

    def run(script):
        begin = (
            f'mount --bind {etc} /etc && mount --bind {var} /var/lib && exec {sys.executable} -c "$SCRIPT"'
        )
        done = subprocess.run(
            [*UNSHARE, "sh", "-c", begin],
            env=env
            | {
                "SCRIPT": f"{STORY}\ntold = []\n{script}\nprint(json.dumps(told))",
                "HOME": str(tmp_path),
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "USER_PY": str(tmp_path / "user.py"),
                "WARM": str(warm),
                "LOCKKIT_STATE_DIR": str(tmp_path / "state"),
            },
            capture_output=True,
            check=False,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    yield run
    shutil.rmtree(warm)


@private_root
@two_users
def test_from_init_over_two_users_who_exclude_each_other_to_remove(world):
    """The users' programs name no store: they find it in the administrator's file."""
    told = world("""
init = lockkit("host", "init", "--group", "gpu", "--create-group")
gid = __import__("grp").getgrnam("gpu").gr_gid

class User:
    def __init__(self, uid, gid):
        line = [sys.executable, os.environ["USER_PY"], str(uid), str(gid), os.environ["WARM"]]
        env = {key: value for key, value in os.environ.items() if key != "LOCKKIT_STATE_DIR"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env=env)
    def __call__(self, order):
        self.process.stdin.write(order + "\\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

ann, bob, eve = User(61201, gid), User(61202, gid), User(61203, 0)
attempt = "leases.append(client.lock('card').try_acquire()) or leases[-1] is not None"
told += [init["code"], ann("client.capabilities.scope"), ann(attempt), bob(attempt), eve(attempt)]
refused = lockkit("host", "remove")
told += [refused["code"], refused["err"], ann("leases[0].valid()")]
told += [ann("leases[0].release().outcome"), bob(attempt)]
bob("leases[-1].release()")
card = "leases.append(lockkit.gpu.pool(client, simulate=1).acquire(timeout=0)) or leases[-1].devices[0].index"
told += [ann(card), bob(card), ann("leases[-1].release().outcome")]
told += [bob(card), bob("leases[-1].release().outcome")]
told += [lockkit("host", "remove")["code"], there("/var/lib/lockkit"), there("/etc/lockkit")]
for one in (ann, bob, eve):
    one.process.stdin.close()
    one.process.wait()
""")

    assert told[:4] == [0, "host", "True", "False"]
    assert told[4].startswith("PermissionDenied")
    assert "usermod -aG gpu" in told[4]
    assert told[5] == 75
    assert "1 lock is still held: 'card' by " in told[6]
    assert told[7:10] == ["True", "RELEASED", "True"]
    assert told[11].startswith("AcquireTimeout")
    assert [told[10], *told[12:]] == ["0", "RELEASED", "0", "RELEASED", 0, False, False]


@private_root
@two_users
def test_no_program_goes_on_in_a_store_of_its_own_while_new_ones_lock_in_that_of_all(world):
    """ann is in the group, eve is not; both have locked in stores of their own until now."""
    told = world("""
import pathlib, time
with open("/etc/passwd", "a") as file:
    for name, uid in (("ann", 61201), ("eve", 61203)):
        file.write(f"{name}:x:{uid}:61200::{os.environ['WARM']}/{name}:/bin/sh\\n")
with open("/etc/group", "a") as file:
    file.write("everybody:x:61200:\\ngpu:x:61300:ann\\n")
for name, uid in (("ann", 61201), ("eve", 61203)):
    state = pathlib.Path(os.environ["WARM"], name, ".local/state/lockkit")
    state.mkdir(parents=True)
    for each in (state, *list(state.parents)[:3]):
        os.chown(each, uid, 61200)

class User:
    def __init__(self, name, uid):
        group, warm = "61300" if name == "ann" else "61200", os.environ["WARM"]
        line = [sys.executable, os.environ["USER_PY"], str(uid), group, warm]
        home = f"{os.environ['WARM']}/{name}"
        self.env = {"HOME": home, "LOCKKIT_STATE_DIR": f"{home}/.local/state/lockkit"}
        env = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")} | self.env
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env=env)
        self.pid = self.process.pid
    def __call__(self, order):
        self.process.stdin.write(order + "\\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

ann, late, eve = User("ann", 61201), User("ann", 61201), User("eve", 61203)
hold = "leases.append(client.lock('card').try_acquire()) or leases[-1] is not None"
told += [ann(hold), eve(hold), late("client.url")]
told += [lockkit("host", "init", "--group", "gpu"), [ann.pid, eve.pid]]
told += [there("/etc/lockkit"), there("/var/lib/lockkit")]
told += [ann("leases[0].release().outcome or client.close()"), eve("leases[0].release().outcome")]
ann.process.stdin.close()
ann.process.wait()
told += [lockkit("host", "init", "--group", "gpu", "--dry-run")]
told += [eve("client.close()")]
holds = pathlib.Path(os.environ["WARM"], "ann/.local/state/lockkit/holds")
holds.mkdir()
(holds / "x-1.json").write_text(json.dumps({"url": "sqlite:", "name": "nightly", "until": time.time() + 900}))
(holds / "x-2.json").write_text(json.dumps({"url": "sqlite:", "name": "lapsed", "until": time.time() - 1}))
(holds / "x-3.json").write_text("[]")
os.mkfifo(holds / "x-4.json")
(holds / "x-5.json").symlink_to(holds / "x-1.json")
told += [lockkit("host", "init", "--group", "gpu")]
(holds / "x-1.json").unlink()
told += [lockkit("host", "init", "--group", "gpu"), late(hold)]
again = User("eve", 61203)
told += [again(hold)]
again("client.close()")
alone = "globals().update(client=lockkit.connect('sqlite:', scope='user'))"
told += [again(alone), again(hold)]
for one in (late, eve, again):
    one.process.stdin.close()
    one.process.wait()
""")
    first, second, url, refused, pids, *made = told[:7]

    assert [first, second, url, made] == ["True", "True", "sqlite:", [False, False]]
    assert refused["code"] == 75
    for pid, user in zip(pids, ("ann", "eve"), strict=True):
        assert re.search(rf"pid {pid} \([^)]+\) of {user}\b", refused["err"])
    assert "stores of single users are in use: by pid " in refused["err"]
    assert "--force goes on all the same" in refused["err"]
    assert told[7:9] == ["RELEASED", "RELEASED"]
    dry, _, acquired, done = told[9:13]
    assert dry["code"] == 75  # eve's program holds nothing, and would lock there again
    assert (acquired["code"], "in use: by 'nightly', which ann has acquired (" in acquired["err"]) == (
        75,
        True,
    )
    assert done["code"] == 0
    assert re.search(
        r"^new programs of [^;]*\bann\b[^;]* use the store of all users; ", done["out"], re.MULTILINE
    )
    assert re.search(r"not in the group gpu \([^)]*\beve\b[^)]*\) get no lock from now on;", done["out"])
    late, eve, _, alone = told[13:]
    assert late.startswith(
        "ConfigError /etc/lockkit/config.toml names sqlite:/var/lib/lockkit/host.db as the store"
    )
    assert eve.startswith("PermissionDenied")
    assert alone == "True"


def in_the_past(told):
    """The lines of a dry run as the run then has them."""
    pasts = {"be": "are", "make": "made", "write": "wrote", "remove": "removed"}
    return re.sub(r"would (\w+)", lambda found: pasts[found[1]], told)


@private_root
def test_a_dry_run_says_what_a_run_then_does_and_the_second_run_does_nothing(world):
    group = "gpu --create-group" if os.geteuid() == 0 else "root"
    told = world(f"""
line = ["host", "init", "--group", *"{group}".split()]
told += [lockkit(*line, "--dry-run"), there("/etc/lockkit"), there("/var/lib/lockkit")]
told += [lockkit(*line), lockkit(*line), lockkit("host", "show")]
told += [lockkit("host", "remove", "--dry-run"), there("/var/lib/lockkit")]
told += [lockkit("host", "remove"), lockkit("host", "remove")]
told += [os.listdir("/var/lib"), there("/etc/lockkit"), lockkit("host", "show")]
""")
    dry, etc, var, done, again, shown, dry_remove, kept, removed, nothing, left, etc_left, gone = told

    assert (etc, var, kept, left, etc_left) == (False, False, True, [], False)
    assert [one["code"] for one in (dry, done, again, shown, dry_remove, removed, nothing)] == [0] * 7
    assert dry["out"].count("would ") == (4 if os.geteuid() == 0 else 3)
    assert [line for line in done["out"].splitlines() if line.startswith(("made the folder ", "wrote "))]
    assert in_the_past(dry["out"]) == done["out"]
    assert again["out"].startswith("nothing to do\n")
    assert "folder: /var/lib/lockkit\n" in shown["out"]
    assert in_the_past(dry_remove["out"]) == removed["out"]
    assert nothing["out"] == "nothing to do\n"
    assert (gone["code"], gone["out"]) == (1, "lockkit host init has made nothing on this host\n")


@private_root
def test_the_administrators_settings_stay(world):
    told = world("""
os.makedirs("/etc/lockkit")
mine = '# ours\\nttl = "45s"\\n\\n[profiles.far]\\nurl = "redis://cache"\\n'
open("/etc/lockkit/config.toml", "w").write(mine)
told += [lockkit("host", "init", "--group", "root")["code"]]
told += [lockkit("config", "show", "ttl", "url", "scope", "--json")["out"]]
told += [lockkit("host", "remove")["code"], open("/etc/lockkit/config.toml").read() == mine]
told += [os.listdir("/etc/lockkit")]
open("/etc/lockkit/config.toml", "w").write('url = "redis://cache"\\n')
refused = lockkit("host", "init", "--group", "root")
told += [refused["code"], refused["err"], there("/var/lib/lockkit"), os.listdir("/etc/lockkit")]
""")

    assert told[0] == told[2] == 0
    settings = {one["key"]: one["value"] for one in json.loads(told[1])["settings"]}
    assert settings == {"ttl": "45s", "url": "sqlite:/var/lib/lockkit/host.db", "scope": "host"}
    assert told[3:6] == [True, ["config.toml"], 78]
    assert 'has url = "redis://cache", not "sqlite:/var/lib/lockkit/host.db"' in told[6]
    assert told[7:] == [False, ["config.toml"]]


@private_root
def test_what_is_in_the_way_is_told_and_once_it_is_gone_all_is_made(world):
    told = world("""
os.makedirs("/etc/lockkit")
open("/etc/lockkit/config.toml", "w").write("url = ")
told += [lockkit("host", "init", "--group", "root")]
os.unlink("/etc/lockkit/config.toml")
os.mkdir("/var/lib/lockkit")
told += [lockkit("host", "init", "--group", "root")]
os.rmdir("/var/lib/lockkit")
told += [lockkit("host", "init", "--group", "root"), lockkit("host", "remove")]
told += [os.listdir("/var/lib"), there("/etc/lockkit")]
""")
    file, folder, done, removed, *left = told

    assert (file["code"], folder["code"], done["code"], removed["code"]) == (78, 78, 0, 0)
    assert "config.toml: not valid TOML" in file["err"]
    assert "with mode 0755 instead of 2770 (chmod 2770 /var/lib/lockkit" in folder["err"]
    assert left == [[], True]  # the folder in /etc was there before


@pytest.fixture
def shared_place(lockkit):
    """A folder and a file that the administrator made for other uses, with a store that init has made."""
    place = Path(tempfile.mkdtemp(prefix="lockkit-", dir="/var/tmp"))
    place.chmod(0o755)
    lockkit.env["LOCKKIT_CONFIG"] = str(place / "config.toml")
    yield place
    shutil.rmtree(place)


@as_root
def test_the_paths_are_options_and_the_documents_have_their_steps(lockkit, shared_place):
    paths = ("--config", shared_place / "config.toml")
    line = ("host", "init", "--group", GROUP, "--folder", shared_place / "locks", *paths)

    document = lockkit.json(*line)

    assert [step["action"] for step in document["steps"]] == ["make_folder", "write_settings"]
    seen = (shared_place / "locks").stat()
    assert (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) == (0o2770, 0, GROUP)
    assert stat.S_IMODE((shared_place / "config.toml").stat().st_mode) == 0o644
    assert lockkit.json(*line)["steps"] == []
    assert lockkit.json("host", "show", *paths)["folder"] == str(shared_place / "locks")
    assert "keep apart the processes of all users of one host" in lockkit("doctor").stdout
    (shared_place / "locks" / "thesis.tex").touch()
    refused = lockkit("host", "remove", *paths)
    assert (refused.returncode, "also contains thesis.tex" in refused.stderr) == (78, True)
    assert "host.db" in (shared_place / "config.toml").read_text()  # programs still find the one store
    (shared_place / "locks" / "thesis.tex").unlink()
    document = lockkit.json("host", "remove", *paths)
    assert [step["action"] for step in document["steps"]] == ["remove_settings", "remove_folder"]


@as_root
def test_a_store_in_a_folder_that_was_there_before_is_left_only_unheld_and_drained(lockkit, shared_place):
    """Else programs that have it open would hold a lock, and new ones would get it in their user's store."""
    paths = ("--config", shared_place / "config.toml")
    folder = shared_place / "locks"
    folder.mkdir()
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2770)
    lockkit.json("host", "init", "--group", GROUP, "--folder", folder, *paths)
    holder = lockkit.start("run", "x", "--", "sleep", "60")
    lockkit.until(lambda: lockkit.claims("x"))

    refused = lockkit("host", "remove", *paths)

    assert (refused.returncode, "1 lock is still held" in refused.stderr) == (75, True)
    holder.terminate()
    holder.wait()
    assert "stays, drained" in lockkit.json("host", "remove", *paths)["remarks"][0]
    assert not (shared_place / "config.toml").exists()
    del lockkit.env["LOCKKIT_CONFIG"]
    url = f"sqlite:{folder}/host.db"
    assert lockkit("run", "x", "--url", url, "--", "true").returncode == 75
    assert lockkit("undrain", "--url", url).returncode == 0
    assert lockkit("run", "x", "--url", url, "--", "true").returncode == 0


@as_root
def test_a_held_lock_of_another_namespace_stops_a_removal_unless_forced(lockkit, shared_place):
    paths = ("--config", shared_place / "config.toml")
    lockkit.json("host", "init", "--group", GROUP, "--folder", shared_place / "locks", *paths)
    lockkit.holder("x", "sleep")
    with_namespace = lockkit.start("run", "far", "--namespace", "other", "--", "sleep", "60")
    lockkit.until(lambda: lockkit.claims("far", namespace="other"))

    refused = lockkit("host", "remove", *paths, "--json")

    dry = lockkit("host", "remove", *paths, "--dry-run")
    assert (dry.returncode, "2 locks are still held" in dry.stderr) == (75, True)
    assert f"would remove the folder {shared_place}/locks with its store\n" in dry.stdout
    assert refused.returncode == 75
    assert "2 locks are still held" in json.loads(refused.stderr)["message"]
    assert "nobody drains" not in lockkit("status").stderr
    assert lockkit("run", "free", "--", "true").returncode == 0  # and nothing is drained
    assert lockkit("host", "remove", *paths, "--force").returncode == 0
    assert list(shared_place.iterdir()) == []
    assert with_namespace.poll() is None


@as_root
def test_an_interrupted_init_is_shown_as_begun(lockkit, shared_place):
    paths = ("--config", shared_place / "config.toml")
    lockkit.json("host", "init", "--group", GROUP, "--folder", shared_place / "locks", *paths)
    assert "begun" not in lockkit("host", "show", *paths).stdout
    record = json.loads((shared_place / "host-init.json").read_text())
    record |= {"group": {"name": "no-such-group", "gid": -1}, "folder": None, "config": None}
    (shared_place / "host-init.json").write_text(json.dumps(record))
    (shared_place / "locks").rename(shared_place / "elsewhere")
    (shared_place / "config.toml").unlink()

    shown = lockkit("host", "show", *paths).stdout

    missing = "the group no-such-group, the folder, the url in the administrator's file"
    assert f"begun, not finished; missing: {missing}\n" in shown
    assert "to finish it, run lockkit host init again" in shown


@as_root
def test_a_forged_record_has_root_open_and_remove_nothing(lockkit, shared_place):
    theirs = shared_place / "theirs"
    (theirs / "sub").mkdir(parents=True)
    os.chown(theirs, ANN, ANN)
    record = {"v": 1, "folder": f"{theirs}/sub", "url": f"sqlite:{theirs}/sub/host.db"}
    paths = ("--config", shared_place / "config.toml")
    (theirs / "sub" / "host.db").write_text("no store")
    (shared_place / "host-init.json").write_text(json.dumps(record))
    refused = lockkit("host", "remove", *paths)
    assert (refused.returncode, "other users may write to" in refused.stderr) == (78, True)
    os.chown(shared_place / "host-init.json", ANN, ANN)
    forged = lockkit("host", "remove", *paths, "--force")
    assert (forged.returncode, "a user who is not root" in forged.stderr) == (78, True)
    assert (theirs / "sub" / "host.db").read_text() == "no store"


@pytest.mark.parametrize("which", ["init", "show", "remove"])
def test_options_that_choose_a_store_are_not_offered_where_they_say_nothing(lockkit, which):
    page = lockkit("host", which, "--help").stdout

    assert "--json" in page
    assert not [one for one in ("--url", "--profile", "--namespace") if one in page]


@as_root
def test_a_folder_that_init_did_not_make_is_not_removed(lockkit, shared_place):
    """Neither one that an administrator made after a failed init, nor one that replaced the right one."""
    folder, paths = shared_place / "file" / "locks", ("--config", shared_place / "config.toml")
    line = ("host", "init", "--group", GROUP, "--folder", folder, *paths)
    (shared_place / "file").touch()
    del lockkit.env["LOCKKIT_CONFIG"]
    assert lockkit(*line).returncode == 69
    (shared_place / "file").unlink()
    folder.mkdir(parents=True)
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2770)
    assert lockkit(*line).returncode == lockkit("host", "remove", *paths).returncode == 0
    assert folder.exists()

    folder.rmdir()
    assert lockkit(*line).returncode == 0
    folder.rename(shared_place / "old")
    other = shared_place / "other"
    other.mkdir()
    (other / "host.db").write_text("not ours")
    folder.symlink_to(other)
    assert lockkit("host", "remove", *paths).returncode == 78
    assert [one.name for one in other.iterdir()] == ["host.db"]
    assert (other / "host.db").read_text() == "not ours"


@as_root
def test_an_administrators_file_that_is_a_link_to_nothing_is_refused(lockkit, shared_place):
    config = shared_place / "config.toml"
    config.symlink_to(shared_place / "real.toml")
    del lockkit.env["LOCKKIT_CONFIG"]

    refused = lockkit(
        "host", "init", "--group", GROUP, "--folder", shared_place / "locks", "--config", config
    )

    assert (refused.returncode, "is a link to nothing" in refused.stderr) == (78, True)
    assert [one.name for one in shared_place.iterdir()] == ["config.toml"]


@as_root
@pytest.mark.parametrize("owner, mode", [(ANN, 0o644), (0, 0o646), (0, 0o664)])
def test_an_administrators_file_that_others_may_write_to_is_refused(lockkit, shared_place, owner, mode):
    config = shared_place / "config.toml"
    config.write_text("")
    os.chown(config, owner, owner)
    config.chmod(mode)

    refused = lockkit(
        "host", "init", "--group", GROUP, "--folder", shared_place / "locks", "--config", config
    )

    assert (refused.returncode, "users other than root may write to" in refused.stderr) == (78, True)
    assert config.read_text() == ""


def test_who_is_not_root_may_only_look(lockkit, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("this is root")
    done = lockkit("host", "init", "--group", "root", "--config", tmp_path / "c", "--folder", tmp_path / "f")
    assert (done.returncode, "only root" in done.stderr) == (69, True)


def test_a_user_is_told_once_that_only_root_can(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("os.geteuid", lambda: ANN)
    line = [
        "host",
        "init",
        "--group",
        "no-such-group",
        "--config",
        f"{tmp_path}/c",
        "--folder",
        f"{tmp_path}/f",
    ]

    assert run(line) == 69

    assert (
        capsys.readouterr().err == "lockkit: only root can set up or remove a store of all users (use sudo)\n"
    )


def test_doctor_in_a_container_says_how_far_the_locks_reach_and_what_to_mount(lockkit):
    def told(**env):
        found = json.loads(lockkit("doctor", "--json", env=env).stdout)["findings"]
        return [one for one in found if one["check"] == "container"]

    (finding,) = told(container="podman")

    assert "this process runs in a container (podman). The store lies " in finding["message"]
    assert f"{lockkit.folder}/state)" in finding["message"]
    assert f"Only user {os.getuid()} shares it." in finding["message"]
    (finding,) = told(container="podman", LOCKKIT_URL="memory:")
    assert "this store reaches no other process" in finding["message"]
