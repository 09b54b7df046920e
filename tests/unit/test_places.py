import os
import stat

import pytest

from lockkit.config import places
from lockkit.errors import BackendUnavailable, ConfigError

NOBODY = 65_534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(places, "_told", set())


@pytest.fixture
def mounts(tmp_path):
    """Write a mount table in the kernel's format; each line is (mount point, type)."""

    def write(*lines):
        path = tmp_path / "mountinfo"
        path.write_text(
            "".join(
                f"{36 + number} 35 98:{number} / {point} rw,noatime shared:1 - {kind} source rw\n"
                for number, (point, kind) in enumerate(lines)
            )
        )
        return path

    return write


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "home"
    path.mkdir()
    return path


def test_the_kernels_own_table_is_understood():
    assert places.filesystem("/proc/self/stat") == "proc"
    assert places.network_filesystem("/proc") is None


@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "glusterfs", "fuse.glusterfs", "ceph", "lustre", "9p",
     "afs", "virtiofs", "fuse.s3fs", "fuse", "beegfs", "gpfs"],
)  # fmt: skip
def test_network_file_systems_are_named(mounts, kind):
    assert places.network_filesystem("/data/x", mounts=mounts(("/", "ext4"), ("/data", kind))) == kind


@pytest.mark.parametrize(
    "kind",
    ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.fuse-overlayfs", "fuse.gocryptfs"],
)
def test_local_file_systems_are_not(mounts, kind):
    table = mounts(("/", "nfs4"), ("/data", kind))
    assert places.filesystem("/data/x", mounts=table) == kind
    assert places.network_filesystem("/data/x", mounts=table) is None


def test_the_longest_mount_point_decides(mounts):
    table = mounts(("/", "ext4"), ("/net", "nfs"), ("/net/local", "xfs"), ("/network", "tmpfs"))
    assert places.filesystem("/net/x", mounts=table) == "nfs"
    assert places.filesystem("/net/local/x", mounts=table) == "xfs"
    assert places.filesystem("/network/x", mounts=table) == "tmpfs"
    assert places.filesystem("/net", mounts=table) == "nfs"
    assert places.filesystem("/elsewhere", mounts=table) == "ext4"
    assert places.filesystem("/netherlands/x", mounts=table) == "ext4"


def test_of_stacked_mounts_the_last_decides(mounts):
    assert (
        places.filesystem("/home/ann", mounts=mounts(("/", "ext4"), ("/home", "autofs"), ("/home", "nfs4")))
        == "nfs4"
    )


def test_escaped_mount_points(mounts):
    assert places.filesystem("/my disk/x", mounts=mounts(("/", "ext4"), ("/my\\040disk", "cifs"))) == "cifs"


def test_links_are_followed(mounts, tmp_path):
    (tmp_path / "link").symlink_to("/net")
    assert places.filesystem(tmp_path / "link" / "x", mounts=mounts(("/", "ext4"), ("/net", "nfs"))) == "nfs"


def test_nothing_is_refused_where_the_system_does_not_tell(tmp_path):
    assert places.network_filesystem("/x", mounts=tmp_path / "absent") is None


def test_home_gets_the_state_folder_for_its_owner_only(home, mounts):
    old = os.umask(0)
    try:
        place = places.state_place({"HOME": str(home)}, mounts=mounts(("/", "ext4")))
    finally:
        os.umask(old)
    assert place == (home / ".local/state/lockkit", "default")
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700
    assert str(place) == str(place.path)


@pytest.mark.parametrize("umask", [0, 0o22, 0o77, 0o277])
def test_every_folder_that_is_created_is_for_its_owner_alone_whatever_the_umask(home, mounts, umask):
    """With a umask of 0, ~/.local was 0777: anybody could put a folder in place of this user's."""
    old = os.umask(umask)
    try:
        place = places.state_place({"HOME": str(home)}, mounts=mounts(("/", "ext4")))
    finally:
        os.umask(old)
    made = (place.path, *(folder for folder in place.path.parents if home in folder.parents))
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [0o700] * 3


def test_folders_that_are_there_keep_their_modes(home, mounts):
    (home / ".local").mkdir()
    (home / ".local").chmod(0o755)
    place = places.state_place({"HOME": str(home)}, mounts=mounts(("/", "ext4")))
    assert stat.S_IMODE((home / ".local").stat().st_mode) == 0o755
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700


def test_a_file_in_place_of_a_folder_above_is_told(home, mounts):
    (home / ".local").write_text("")
    with pytest.raises(FileExistsError):
        places.make_folders(home / ".local/state/lockkit")


def test_order_of_the_sources(tmp_path, home):
    environ = {
        "HOME": str(home),
        "XDG_STATE_HOME": str(tmp_path / "xdg"),
        "LOCKKIT_STATE_DIR": str(tmp_path / "stated"),
    }
    stated = (str(tmp_path / "pinned"), "/etc/lockkit/config.toml")
    assert places.state_place(environ, stated) == (tmp_path / "pinned", "/etc/lockkit/config.toml")
    assert places.state_place(environ) == (tmp_path / "stated", "LOCKKIT_STATE_DIR")
    del environ["LOCKKIT_STATE_DIR"]
    assert places.state_place(environ) == (tmp_path / "xdg/lockkit", "XDG_STATE_HOME")
    environ["XDG_STATE_HOME"] = "relative"
    assert places.state_place(environ).path == home / ".local/state/lockkit"


def test_home_on_a_network_is_passed_over(home, mounts, monkeypatch):
    made = []
    monkeypatch.setattr(places, "private_dir", lambda path, **_: made.append(path) or path)
    place = places.state_place({"HOME": str(home)}, mounts=mounts(("/", "nfs4")))
    assert str(place) == f"/var/tmp/lockkit-{os.getuid()}"
    assert "nfs4" in place.source
    assert not (home / ".local").exists()


def test_a_home_that_cannot_be_written_to_is_passed_over(home, monkeypatch):
    (home / ".local").write_text("a file where the folder should be")
    monkeypatch.setattr(places, "private_dir", lambda path, **_: path)
    place = places.state_place({"HOME": str(home)})
    assert str(place).startswith("/var/tmp/lockkit-")
    assert "cannot be created" in place.source


def test_a_fallback_that_nobody_stated_is_told_once(home, monkeypatch, caplog):
    (home / ".local").write_text("a file where the folder should be")
    monkeypatch.setattr(places, "private_dir", lambda path, **_: path)
    environ = {"HOME": str(home)}

    places.state_place(environ | {"LOCKKIT_STATE_DIR": "/stated"})
    assert not caplog.records
    places.state_place(environ)
    places.state_place(environ)

    (record,) = caplog.records
    assert (record.name, record.levelname) == ("lockkit", "WARNING")
    assert f"/var/tmp/lockkit-{os.getuid()}" in record.getMessage()
    assert f"{home}/.local/state/lockkit cannot be created" in record.getMessage()
    assert "LOCKKIT_STATE_DIR" in record.getMessage()


def test_the_usual_folder_is_no_news(home, caplog):
    places.state_place({"HOME": str(home)})

    assert not caplog.records


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_without_home_the_passwd_entry_knows_it(home, monkeypatch, value):
    entry = type("Entry", (), {"pw_dir": str(home)})
    monkeypatch.setattr(places.pwd, "getpwuid", lambda uid: entry)
    environ = {} if value is None else {"HOME": value}
    assert places.state_place(environ).path == home / ".local/state/lockkit"


def test_without_any_home(monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(places.pwd, "getpwuid", unknown)
    monkeypatch.setattr(places, "private_dir", lambda path, **_: path)
    assert str(places.state_place({})) == f"/var/tmp/lockkit-{os.getuid()}"


@pytest.mark.parametrize("home", ["/", "/nonexistent"])
def test_a_daemons_home_is_none(home):
    assert places.home_dir({"HOME": home}) is None


def test_a_path_of_200_characters(tmp_path):
    path = tmp_path / ("x" * 100) / ("y" * 100)
    assert len(str(path)) > 200
    assert places.state_place({"LOCKKIT_STATE_DIR": str(path)}).path.is_dir()


def test_stated_paths_know_home_and_uid(tmp_path, home):
    environ = {"HOME": str(home)}
    assert places.state_place(environ, ("~/state", "x")).path == home / "state"
    assert places.state_place(environ, (f"{tmp_path}/{{uid}}", "x")).path == tmp_path / str(os.getuid())


@pytest.mark.parametrize("text", ["relative", "./x", "~ann/x", "/a\0b"])
def test_a_stated_path_must_be_absolute(text):
    with pytest.raises(ConfigError, match=r"absolute path.*from LOCKKIT_STATE_DIR"):
        places.state_place({"LOCKKIT_STATE_DIR": text})


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(BackendUnavailable, match=r"others may write.*chmod 700"):
        places.private_dir(path)


def test_one_that_others_may_read_is_not(tmp_path):
    path = tmp_path / "state"
    path.mkdir(mode=0o755)
    assert places.private_dir(path) == path


@as_root
def test_a_folder_of_somebody_else_is_refused(tmp_path):
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(BackendUnavailable, match=r"belongs to \w+, not to root.*LOCKKIT_STATE_DIR"):
        places.private_dir(path)


@as_root
def test_another_users_home_is_reported_not_stepped_around(home):
    path = home / ".local/state/lockkit"
    path.mkdir(parents=True)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(BackendUnavailable, match="belongs to"):
        places.state_place({"HOME": str(home)})


@as_root
def test_a_strangers_link_is_a_trap(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to("mine")
    assert places.private_dir(link) == link
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(BackendUnavailable):
        places.private_dir(link)


def test_a_file_in_its_place(tmp_path):
    path = tmp_path / "state"
    path.write_text("")
    with pytest.raises(BackendUnavailable, match="cannot use"):
        places.private_dir(path)
