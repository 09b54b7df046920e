"""Layers of the configuration: which one wins, and what is told about it."""

import inspect
import itertools
import logging
import os
import tempfile
import time
import tomllib
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lockkit
import lockkit.aio
from lockkit.config import config, layers
from lockkit.config.as_toml import template, toml
from lockkit.config.settings import SETTINGS, TABLES, nearest, read, redact
from lockkit.errors import ConfigError
from lockkit.plugins.checking import check_files
from lockkit.shared.options import Settings
from lockkit.testing.children import Child


class World:
    """Folders and an environment that belong to one test."""

    def __init__(self, path):
        self.etc = path / "etc/config.toml"
        self.home = path / "home"
        self.user = self.home / ".config/lockkit/config.toml"
        self.cwd = self.home / "project/deep/inside"
        self.project = self.home / "project/lockkit.toml"
        self.environ = {}
        self.cwd.mkdir(parents=True)

    def write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def load(self, url=None, **keywords):
        return config.load(url, environ=self.environ, cwd=self.cwd, etc=self.etc, home=self.home, **keywords)

    def check(self):
        return check_files(environ=self.environ, cwd=self.cwd, etc=self.etc, home=self.home, discover=tuple)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "_warned", set())
    return World(tmp_path)


# -- the table -----------------------------------------------------------------------------------------------


def test_a_config_has_exactly_the_settings_of_the_table():
    besides = {"profile", "plugins", "pools", "alerts", "sources", "files", "arguments"}
    assert [each for each in config.Config._fields if each not in besides] == list(SETTINGS)


def test_every_default_is_allowed_and_explained():
    for setting in SETTINGS.values():
        assert setting.meaning.endswith(".")
        if setting.default is not None:
            assert read(setting, setting.default) == setting.default


def test_defaults(world):
    got = world.load()
    assert (got.url, got.namespace, got.ttl, got.timeout, got.max_hold) == (
        "sqlite:",
        "default",
        30.0,
        None,
        None,
    )
    assert (got.age_warning, got.age_soft, got.age_hard) == (300.0, 600.0, 900.0)
    assert {source for _, _, source in got.describe()} == {"default"}
    assert not got.is_set("ttl")


def test_the_file_for_a_beginning_states_nothing_and_shows_every_default():
    assert tomllib.loads(template()) == {}
    lines = [
        line.removeprefix("#")
        for line in template().splitlines()
        if line.startswith("#") and line[1:2] != " "
    ]
    shown = tomllib.loads("\n".join(lines))
    assert set(shown) == {*TABLES[None], *filter(None, TABLES), "profiles", "pools"}
    for table, settings in TABLES.items():
        for key, setting in settings.items():
            if setting.default is not None or setting.kind == "limit":
                assert read(setting, (shown[table] if table else shown)[key]) == setting.default


def test_all_of_the_file_for_a_beginning_can_be_uncommented(world):
    text = "\n".join(line.removeprefix("#") for line in template().splitlines() if not line.startswith("# "))
    world.write(world.user, text)
    found = check_files(
        environ={"HOME": str(world.home)}, cwd=world.cwd, etc=world.etc, home=world.home, discover=tuple
    )
    assert [finding.message for finding in found if finding.severity == "error"] == []
    assert template().count("Not set by default; for instance:") == 6


# -- which layer wins ----------------------------------------------------------------------------------------

STEPS = ("etc", "user", "project", "environment", "query", "keyword")


@pytest.mark.parametrize("low, high", list(combinations(STEPS, 2)))
def test_later_layers_win(world, low, high):
    keywords, url = {}, None
    for number, step in enumerate((low, high), start=1):
        if step == "environment":
            world.environ["LOCKKIT_TTL"] = f"{number}s"
        elif step == "query":
            url = f"memory:?ttl={number}s"
        elif step == "keyword":
            keywords["ttl"] = number
        else:
            world.write(getattr(world, step), f'ttl = "{number}s"')
    got = world.load(url, **keywords)
    assert got.ttl == 2.0
    origin = {
        "etc": str(world.etc),
        "user": str(world.user),
        "project": str(world.project),
        "environment": "LOCKKIT_TTL",
        "query": "query of the URL from argument",
        "keyword": "argument",
    }
    assert got.source("ttl") == origin[high]
    assert got.is_set("ttl")


def test_a_none_keyword_is_not_stated(world):
    world.write(world.user, "ttl = 7")
    assert world.load(ttl=None).ttl == 7.0


def test_an_empty_variable_is_unset(world):
    world.environ.update(LOCKKIT_URL="", LOCKKIT_TTL="", LOCKKIT_PROFILE="", LOCKKIT_CONFIG="")
    assert world.load().url == "sqlite:"


@pytest.mark.parametrize("step", ["user", "project", "environment", "query", "profile"])
def test_a_pin_beats_everything_below_code(world, step):
    world.write(world.etc, 'pinned = true\nurl = "sqlite:/var/lib/lockkit/host.db"\nttl = "1m"')
    redirect = 'url = "redis://evil"\nttl = "5s"'
    if step == "environment":
        world.environ.update(LOCKKIT_URL="redis://evil", LOCKKIT_TTL="5s")
    elif step == "query":
        world.environ.update(LOCKKIT_URL="redis://evil?ttl=5s")
    elif step == "profile":
        world.write(world.project, f"[profiles.x]\n{redirect}")
    else:
        world.write(getattr(world, step), redirect)
    got = world.load(profile="x" if step == "profile" else None)
    assert (got.url, got.ttl) == ("sqlite:/var/lib/lockkit/host.db", 60.0)
    assert got.source("url") == str(world.etc)


def test_code_beats_a_pin_with_its_urls_query_too(world):
    world.write(world.etc, 'pinned = true\nurl = "sqlite:/x"\nttl = "1m"\nnamespace = "host"')
    got = world.load("memory:?ttl=5s", namespace="mine")
    assert (got.url, got.ttl, got.namespace) == ("memory:", 5.0, "mine")


def test_a_pin_holds_what_it_states_and_no_more(world):
    world.write(world.etc, "pinned = true\nttl = 60")
    world.write(world.user, 'url = "memory:?ttl=5s"\nnamespace = "mine"')
    got = world.load()
    assert (got.url, got.namespace, got.ttl) == ("memory:", "mine", 60.0)


def test_a_pinned_urls_query_is_pinned_with_it(world):
    world.write(world.etc, 'pinned = true\nurl = "memory:?ttl=5s"\nttl = 60')
    world.environ["LOCKKIT_TTL"] = "7"
    assert world.load().ttl == 5.0


@pytest.mark.parametrize("where", ["user", "project"])
def test_only_the_administrator_pins(world, where):
    world.write(getattr(world, where), "pinned = true")
    with pytest.raises(ConfigError, match="pinned is only allowed in the administrator"):
        world.load()


def test_pinned_plugin_tables_cannot_be_redirected(world):
    world.write(world.etc, 'pinned = true\n[plugins.My_Alerts]\nurl = "mailto:ops"')
    world.write(world.project, '[plugins.my-alerts]\nurl = "mailto:evil"\nrate = 3')
    got = world.load()
    assert got.plugins == {"my-alerts": {"url": "mailto:ops", "rate": 3}}
    assert got.source("plugins.my-alerts.url") == str(world.etc)
    assert got.source("plugins.my-alerts.rate") == str(world.project)


# -- profiles ------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(world):
    world.write(world.user, 'ttl = 10\n[profiles.gpu]\nurl = "memory:"\nttl = "5m"')
    world.write(world.project, 'namespace = "p"\nttl = 20')
    return world


def test_a_profile_stands_above_all_files(gpu):
    got = gpu.load(profile="gpu")
    assert (got.url, got.ttl, got.namespace, got.profile) == ("memory:", 300.0, "p", "gpu")
    assert got.source("ttl") == f"{gpu.user} [profiles.gpu]"


def test_a_profile_by_keyword_beats_the_environment_and_one_of_the_environment_does_not(gpu):
    gpu.environ["LOCKKIT_TTL"] = "7s"
    assert gpu.load(profile="gpu").ttl == 300.0
    gpu.environ["LOCKKIT_PROFILE"] = "gpu"
    got = gpu.load()
    assert (got.ttl, got.url, got.source("profile")) == (7.0, "memory:", "LOCKKIT_PROFILE")


def test_unknown_profile(gpu):
    with pytest.raises(ConfigError, match=r"no profile 'gpus' \(did you mean gpu\?\)"):
        gpu.load(profile="gpus")
    with pytest.raises(ConfigError, match=r"there are gpu\)"):
        gpu.load(profile="zzz")


# -- files ---------------------------------------------------------------------------------------------------


def test_pyproject_without_our_table_is_no_project_file(world):
    outer = world.write(world.home / "project/pyproject.toml", '[tool.lockkit]\nnamespace = "outer"')
    world.write(world.home / "project/deep/pyproject.toml", '[project]\nname = "lockkit-user"')
    world.write(world.cwd / "pyproject.toml", "this is not TOML, and none of our business")
    got = world.load()
    assert (got.namespace, got.source("namespace")) == ("outer", str(outer))


def test_the_nearest_project_file_is_the_only_one(world):
    world.write(world.project, "ttl = 5\nmax_hold = 5000")
    world.write(world.cwd / "lockkit.toml", "ttl = 6")
    world.write(world.cwd / "pyproject.toml", "[tool.lockkit]\nttl = 7")
    got = world.load()
    assert (got.ttl, got.max_hold) == (6.0, None)


def test_the_search_ends_at_home(world):
    world.write(world.home.parent / "lockkit.toml", "ttl = 5")
    assert world.load().ttl == 30.0
    world.write(world.home / "lockkit.toml", "ttl = 6")
    assert world.load().ttl == 6.0


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_strangers_file_in_an_open_folder_is_passed_over(world, caplog):
    path = world.write(world.cwd / "lockkit.toml", 'url = "redis://evil"')
    os.chown(path, 65_534, 65_534)
    assert world.load().url == "redis://evil"  # a colleague's file in a folder of one's own
    world.cwd.chmod(0o1777)
    assert world.load().url == "sqlite:"
    assert str(path) in caplog.text


def test_a_link_in_an_open_folder_is_passed_over(world, caplog):
    """A link's target may have another owner, and the link may lead elsewhere the next moment."""
    world.write(world.home / "mine.toml", 'url = "redis://mine"')
    path = world.cwd / "lockkit.toml"
    path.symlink_to(world.home / "mine.toml")
    assert world.load().url == "redis://mine"  # in a folder of one's own a link is one's own wish
    world.cwd.chmod(0o1777)
    assert world.load().url == "sqlite:"
    assert str(path) in caplog.text


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_strangers_file_that_takes_turns_with_ones_own_is_never_read(world):
    """The opened file's owner counts: a look at the name proves nothing about what is read later."""
    theirs = world.write(world.cwd / "theirs", 'url = "redis://evil"')
    os.chown(theirs, 65_534, 65_534)
    mine = world.write(world.cwd / "mine", 'url = "redis://mine"')
    world.cwd.chmod(0o777)

    def turn(_):
        for file in itertools.cycle((theirs, mine)):
            (world.cwd / "next").hardlink_to(file)
            (world.cwd / "next").replace(world.cwd / "lockkit.toml")

    turning = Child(turn)
    try:
        urls = {world.load().url for _ in range(500)}
    finally:
        turning.kill()
        turning.close()
    assert "redis://mine" in urls
    assert urls <= {"redis://mine", "sqlite:"}


def test_a_fifo_in_place_of_a_project_file_is_passed_over(world):
    os.mkfifo(world.cwd / "lockkit.toml")
    assert world.load().url == "sqlite:"


def test_a_named_file_takes_the_place_of_the_found_ones_but_not_of_the_administrators(world):
    world.write(world.etc, "namespace = 'host'")
    world.write(world.user, "ttl = 5")
    world.write(world.project, "max_hold = 5000")
    named = world.write(world.cwd / "other.toml", "lock_delay = 3")
    world.environ["LOCKKIT_CONFIG"] = "other.toml"
    got = world.load()
    assert (got.namespace, got.ttl, got.max_hold, got.lock_delay) == ("host", 30.0, None, 3.0)
    assert world.load(config=named).lock_delay == 3.0


@pytest.mark.parametrize("name", ["absent.toml", "pyproject.toml"])
def test_a_named_file_must_say_something(world, name):
    world.write(world.cwd / "pyproject.toml", "[project]")
    with pytest.raises(ConfigError, match=name):
        world.load(config=name)


def test_xdg_config_home(world, tmp_path):
    world.environ["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    world.write(tmp_path / "xdg/lockkit/config.toml", "ttl = 5")
    world.write(world.user, "ttl = 6")
    assert world.load().ttl == 5.0


@pytest.mark.parametrize(
    "text, told",
    [
        ("ttll = 5", r"unknown key ttll \(did you mean ttl\? allowed: url, namespace, "),
        ("ttl = 'soon'", r"ttl must be a duration, not 'soon' \(write 500ms, 30s"),
        ("ttl = 0", "ttl must be more than 0"),
        ("ttl = true", "ttl must be a number of seconds"),
        ("ttl = [1]", r"ttl must be a duration such as .*, not \[a number\]"),
        ("strict = 'yes'", "strict must be true or false, not 'yes'"),
        (
            "scope = 'flet'",
            r'scope must be "process" or "user" or "host" or "fleet", not \'flet\' \(did you mean fleet\?\)',
        ),
        ("url = 'localhost'", r"url must be a store's URL, not '\*\*\*'"),
        ("url = 3", "url must be a text, not a number"),
        ("namespace = 'a/b'", "not a namespace: 'a/b'"),
        ("disable_plugins = [1]", "disable_plugins must be a list of texts"),
        ("[profiles]\ngpu = 3", "profiles.gpu must be a table"),
        ("[profiles.gpu]\nttll = 3", r"unknown key profiles.gpu.ttll \(did you mean ttl\?"),
        ("[profiles.gpu]\npinned = true", "unknown key profiles.gpu.pinned"),
        ("plugins = 3", "plugins must contain tables"),
        ("ttl = 1\nttl: 2", r"not valid TOML: .*line 2.*write ttl = \.\.\., not ttl: \.\.\."),
        (
            "ttl = 1\nurl = redis://h",
            r'not valid TOML: .*line 2.*a text needs quotation marks: url = "\.\.\."',
        ),
        ("ttl = ", "not valid TOML: .*the value of ttl is missing"),
        ("ttl = 'x", r"not valid TOML: .*see the line ttl = \.\.\."),
        ("ttl = 5\nttl = 6", "not valid TOML"),
    ],
)
def test_a_mistake_is_told_with_its_file(world, text, told):
    path = world.write(world.user, text)
    with pytest.raises(ConfigError, match=told) as raised:
        world.load()
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_that_is_no_text(world):
    world.write(world.user, "").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        world.load()


def test_a_file_that_cannot_be_read_is_not_a_file_that_is_not_there(world):
    world.etc.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"config.toml: cannot be read"):
        world.load()


@pytest.fixture
def behind():
    """A home folder behind a folder of root's that is closed to others; the body runs as another user."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        house = Path(made) / "root"
        house.parent.chmod(0o755)
        (house / ".config/lockkit").mkdir(parents=True)
        (house / ".config/lockkit/config.toml").write_text("ttl = 7")
        house.chmod(0o700)
        os.seteuid(65_534)
        try:
            yield house
        finally:
            os.seteuid(0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
def test_a_file_behind_a_strangers_folder_is_absent_with_a_warning(world, behind, caplog):
    got = config.load(environ={"HOME": str(behind)}, cwd="/", etc=behind.parent / "none.toml")

    assert got.ttl == 30.0
    assert f"this user may not look into {behind}" in caplog.text


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
def test_a_file_that_was_asked_for_or_may_pin_is_never_taken_as_absent(world, behind):
    path = behind / ".config/lockkit/config.toml"

    for asked in ({"config": path}, {"etc": path, "home": "/"}):
        with pytest.raises(ConfigError, match=r"config.toml: cannot be read"):
            config.load(**{"environ": {}, "cwd": "/", "etc": behind.parent / "none.toml"} | asked)


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
def test_a_file_that_is_there_and_cannot_be_read_is_an_error(world, behind):
    os.seteuid(0)
    behind.chmod(0o755)
    (behind / ".config/lockkit/config.toml").chmod(0o600)
    os.seteuid(65_534)

    with pytest.raises(ConfigError, match=r"config.toml: cannot be read"):
        config.load(environ={"HOME": str(behind)}, cwd="/", etc=behind.parent / "none.toml")


def test_in_a_removed_folder_there_is_no_projects_file(world, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert config.load(environ={}, etc=world.etc, home=world.home).url == "sqlite:"
    with pytest.raises(ConfigError, match=r"other.toml: cannot be read"):
        config.load(environ={}, etc=world.etc, home=world.home, config="other.toml")


# -- settings that stand in a table --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, told",
    [
        (
            "[gpu]\nsimulat = 2",
            (
                r"unknown key gpu\.simulat \(did you mean simulate\? "
                r"allowed: simulate, host, watch, patience, ignore, ignore_memory, idle_below,"
            ),
        ),
        ('[gpu]\nignore_memory = "2"', r"gpu\.ignore_memory"),
        ("[gpu]\nsimulate = 65", r"gpu\.simulate must be a whole number from 0 to 64, not a number"),
        ("[gpu]\nsimulate = true", r"gpu\.simulate must be a whole number"),
        ('[gpu]\nsimulate = "2"', r"gpu\.simulate must be a whole number"),
        ("gpu = 2", r"gpu must be a table, not a number \(write \[gpu\]\)"),
        ("gpu_simulate = 2", r"unknown key gpu_simulate"),
        ("[profiles.a.gpu]\nsimulat = 2", r"unknown key profiles\.a\.gpu\.simulat"),
        ("[profiles.a]\ngpu = 2", r"profiles\.a\.gpu must be a table"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(world, text, told):
    world.write(world.user, text)
    with pytest.raises(ConfigError, match=told):
        world.load()


def test_a_setting_of_a_table_comes_from_each_layer(world):
    world.write(world.user, "[gpu]\nsimulate = 2\n[profiles.many.gpu]\nsimulate = 8")
    assert (world.load().gpu_simulate, world.load(profile="many").gpu_simulate) == (2, 8)
    assert ("gpu.simulate", "2", str(world.user)) in world.load().describe()
    world.environ["LOCKKIT_GPU_SIMULATE"] = "3"
    assert world.load().gpu_simulate == 3
    assert world.load("memory:?gpu_simulate=4").gpu_simulate == 4
    assert world.load("memory:?gpu_simulate=4", gpu_simulate=5).gpu_simulate == 5
    world.environ["LOCKKIT_GPU_SIMULATE"] = "two"
    with pytest.raises(ConfigError, match=r"LOCKKIT_GPU_SIMULATE: gpu\.simulate must be a whole number"):
        world.load()


# -- keywords of connect -------------------------------------------------------------------------------------


def test_connect_takes_every_setting_by_keyword():
    named = set(inspect.signature(lockkit.connect).parameters)
    assert named | set(Settings.__annotations__) >= set(SETTINGS)
    assert not named & set(Settings.__annotations__)
    assert set(Settings.__annotations__) <= set(SETTINGS)


def test_both_faces_are_made_with_the_same_keywords():
    of_threads, of_asyncio = (inspect.signature(each.connect) for each in (lockkit, lockkit.aio))
    assert of_asyncio.parameters == of_threads.parameters


def test_a_keyword_of_connect_is_the_highest_layer(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_TTL", "7s")
    monkeypatch.setenv("LOCKKIT_TIMEOUT", "3s")
    with lockkit.connect("memory:?ttl=9s", ttl=5, timeout=None, state_dir=str(tmp_path)) as client:
        assert client.lock("a").terms.ttl == 5
        assert client.config.source("ttl") == "argument"
        assert client.config.timeout is None
        assert client.config.source("timeout") == "argument"
    with lockkit.connect("memory:", state_dir=str(tmp_path)) as client:
        assert client.lock("a").terms.ttl == 7
        assert client.config.timeout == 3


@pytest.mark.parametrize(
    "settings,told",
    [
        ({"tll": 5}, "unknown setting tll.*did you mean ttl"),
        ({"home": "/"}, "unknown setting home"),
        ({"ttl": "soon"}, "ttl must be a duration"),
        ({"max_hold": 0}, "max_hold"),
        ({"gpu_host": "a box"}, r"gpu\.host must be a host name: .*, not 'a box'"),
        ({"journal_folder": "here"}, r"journal\.folder must be an absolute path, .*, not 'here'"),
        ({"serve_public_url": "//box"}, r"serve\.public_url must be https:// or .*, not '//box'"),
        (
            {"ttl": 5, "config": config.load("memory:", environ={}, cwd="/", home="/")},
            "ttl and config are given together.*load",
        ),
    ],
)
def test_a_keyword_of_connect_that_cannot_be_is_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        lockkit.connect(**settings)


# -- environment and URL -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [setting.env for setting in SETTINGS.values() if setting.env])
def test_variables_on_the_list_reach_their_setting(world, name):
    values = {
        "LOCKKIT_URL": "memory:",
        "LOCKKIT_SCOPE": "process",
        "LOCKKIT_TTL": "5s",
        "LOCKKIT_TIMEOUT": "forever",
        "LOCKKIT_MAX_HOLD": "2h",
        "LOCKKIT_STRICT": "yes",
        "LOCKKIT_LOG_FORMAT": "json",
        "LOCKKIT_PLUGIN_ERRORS": "raise",
        "LOCKKIT_METRICS": "true",
        "LOCKKIT_GPU_SIMULATE": "2",
        "LOCKKIT_GPU_WATCH": "false",
        "LOCKKIT_GPU_PATIENCE": "10s",
        "LOCKKIT_JOURNAL": "on",
    }
    world.environ[name] = values.get(name, "x")
    key = next(key for key, setting in SETTINGS.items() if setting.env == name)
    got = world.load()
    assert getattr(got, key) == read(SETTINGS[key], world.environ[name], text=True)
    assert got.source(key) == name


def test_the_list_of_variables_is_closed():
    assert set(layers.ENVIRONMENT) == {
        f"LOCKKIT_{name}"
        for name in [
            "URL",
            "NAMESPACE",
            "PROFILE",
            "CONFIG",
            "TTL",
            "TIMEOUT",
            "MAX_HOLD",
            "SCOPE",
            "STRICT",
            "JOURNAL",
            "LOG_FORMAT",
            "METRICS",
            "STATE_DIR",
            "DISABLE_PLUGINS",
            "PLUGIN_ERRORS",
            "GPU_SIMULATE",
            "GPU_HOST",
            "GPU_WATCH",
            "GPU_PATIENCE",
            "GPU_UUIDS",
            "GPU_INDEXES",
            "GPU_MEM",
            "GPU_RECEIPT",
            "SERVE_TOKEN_FILE",
            "LEASE_NAME",
            "LEASE_NAMES",
            "POOL_MEMBERS",
            "LEASE_TOKEN",
            "LEASE_FENCE",
            "HELD",
        ]
    }


def test_a_bad_variable_is_an_error_with_its_name(world):
    world.environ["LOCKKIT_TTL"] = "soon"
    with pytest.raises(ConfigError, match=r"^LOCKKIT_TTL: ttl must be a duration"):
        world.load()


def test_an_unknown_variable_is_one_warning(world, caplog):
    world.environ["LOCKKIT_NAMESPAC"] = "prod"
    with caplog.at_level(logging.WARNING, "lockkit.config"):
        world.load()
        world.load()
    assert [record.getMessage() for record in caplog.records] == [
        (
            "the environment variable LOCKKIT_NAMESPAC is unknown to lockkit and is ignored "
            "(did you mean LOCKKIT_NAMESPACE?)"
        )
    ]


@pytest.mark.parametrize(
    "name",
    [
        "LOCKKIT_PORT",
        "LOCKKIT_HOST",
        "LOCKKIT_SERVICE_HOST",
        "LOCKKIT_SERVICE_PORT",
        "LOCKKIT_SERVICE_PORT_HTTP",
        "LOCKKIT_PORT_6379_TCP",
        "LOCKKIT_PORT_6379_TCP_ADDR",
        "LOCKKIT_REDIS_SERVICE_HOST",
        "LOCKKIT_REDIS_PORT",
        "LOCKKIT_REDIS_PORT_53_UDP_PROTO",
    ],
)
def test_what_kubernetes_injects_changes_and_says_nothing(world, caplog, name):
    world.environ[name] = "tcp://10.0.0.1:6379"
    assert world.load().describe() == World.load(world, None).describe()
    assert caplog.text == ""
    assert name not in layers.ENVIRONMENT


def test_a_url_keeps_what_is_the_stores(world):
    got = world.load("redis://h/2?min_replicas=1&ttl=1m&x=%20&namespace=a.b&flag")
    assert (got.url, got.ttl, got.namespace) == ("redis://h/2?min_replicas=1&x=%20&flag", 60.0, "a.b")


@pytest.mark.parametrize(
    "url, told",
    [
        ("memory:?ttl=soon", "query of the URL from argument: ttl must be a duration"),
        ("memory:?ttl=1&ttl=2", "ttl is given twice"),
        ("memory:?ttl", "ttl has no value"),
        ("memory:?strict=maybe", "strict must be true or false"),
    ],
)
def test_mistakes_in_a_query(world, url, told):
    with pytest.raises(ConfigError, match=told):
        world.load(url)


@pytest.mark.parametrize("text, value", [("1", True), ("true", True), ("no", False), ("OFF", False)])
def test_flags_in_a_query(world, text, value):
    assert world.load(f"memory:?strict={text}").strict is value


def test_limits_can_be_lifted_again(world):
    world.write(world.etc, 'timeout = "5m"\nmax_hold = "1h"')
    world.write(world.user, 'timeout = "forever"\nmax_hold = "never"')
    got = world.load()
    assert (got.timeout, got.max_hold) == (None, None)
    assert got.is_set("timeout")


def test_disabled_plugins_in_both_forms(world):
    world.write(world.user, 'disable_plugins = ["a", "b"]')
    assert world.load().disable_plugins == ("a", "b")
    world.environ["LOCKKIT_DISABLE_PLUGINS"] = "c, d,"
    assert world.load().disable_plugins == ("c", "d")


def test_an_unknown_keyword(world):
    with pytest.raises(ConfigError, match=r"unknown setting timeouts \(did you mean timeout\?\)"):
        world.load(timeouts=3)


# -- cross-checks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, told",
    [
        (
            "age_soft = '5m'",
            r"age_soft \(5 min, from .*config.toml\) must be more than age_warning \(5 min, from default\)",
        ),
        ("age_hard = '9m'", "age_hard .* must be more than age_soft"),
        ("max_hold = '14m'\nage_hard = '15m'", "age_hard .* must not be more than max_hold"),
        ("max_hold = '1m'\nmin_hold = '2m'", "min_hold .* must not be more than max_hold"),
        ("ttl = 10\nkill_after = 10", "kill_after .* must be less than ttl"),
    ],
)
def test_settings_must_fit_each_other(world, text, told):
    world.write(world.user, text)
    with pytest.raises(ConfigError, match=told):
        world.load()


def test_default_tiers_make_room_for_a_max_hold(world):
    got = world.load(max_hold=90)
    assert (got.age_warning, got.age_soft, got.age_hard) == (30.0, 60.0, 90.0)
    assert got.source("age_hard") == "default, lowered to fit max_hold"
    assert not got.is_set("age_hard")


def test_a_short_ttl_alone_does_not_collide_with_a_default(world):
    assert world.load(ttl=5).kill_after == 10.0


# -- plugins' own tables -------------------------------------------------------------------------------------


class Alerts(msgspec.Struct, forbid_unknown_fields=True):
    channel: str = "log"
    rate: int = 10
    rules: dict[str, list[int]] = {}


def test_a_plugins_table_becomes_its_struct(world):
    world.write(world.user, '[plugins.my_alerts]\nchannel = "mail"\nrules.a = [1]')
    assert config.plugin_settings(world.load(), "My.Alerts", Alerts) == Alerts("mail", 10, {"a": [1]})
    assert config.plugin_settings(world.load(), "other", Alerts) == Alerts()


@pytest.mark.parametrize(
    "text, told",
    [
        (
            "channels = 'x'",
            (
                r"\[plugins.my-alerts\] channels: .*unknown field.*"
                r"\(did you mean channel\? allowed: channel, rate, rules\)"
            ),
        ),
        ("rate = 'x'", r"\[plugins.my-alerts\] rate: Expected `int`, got `str`"),
        ("rules.a = ['x']", r"\[plugins.my-alerts\] rules\S*: Expected `int`, got `str`"),
    ],
)
def test_a_typo_in_a_plugins_table_is_told_with_file_and_key(world, text, told):
    world.write(world.etc, "[plugins.my-alerts]\nrate = 3")
    path = world.write(world.user, f"[plugins.my-alerts]\n{text}")
    with pytest.raises(ConfigError, match=told) as raised:
        config.plugin_settings(world.load(), "my-alerts", Alerts)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_table_of_a_plugin_that_takes_any_keys_names_its_file(world):
    path = world.write(world.user, "[plugins.my-alerts]\nrate = 'x'")
    with pytest.raises(ConfigError, match="Expected `int`, got `str`") as raised:
        config.plugin_settings(world.load(), "my-alerts", dict[str, int])
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_with_tables_alone_is_not_said_to_have_no_settings(world):
    path = world.write(world.user, "[plugins.my-alerts]\nrate = 3\n[pools.cards]\nmembers = ['0']")
    assert f"{path} is read: [pools.cards], [plugins.my-alerts]" in [one.message for one in world.check()]


# -- the tables of alerts ------------------------------------------------------------------------------------


def test_a_rule_of_alerts_is_changed_key_by_key_and_a_sink_is_taken_whole(world):
    world.write(
        world.etc,
        '[alerts.rules.timeouts]\nabove = 0.2\nseverity = "P1"\n'
        '[alerts.channels.ops]\nurl = "a"\nonly = "P0"',
    )
    path = world.write(
        world.user,
        '[alerts]\nlook_every = "5s"\n[alerts.rules.timeouts]\nabove = 0.3\n[alerts.channels.ops]\nurl = "b"',
    )
    got = world.load()
    assert got.alerts_look_every == 5.0
    assert got.alerts == {
        "rules": {"timeouts": {"above": 0.3, "severity": "P1"}},
        "channels": {"ops": {"url": "b"}},
    }
    assert got.source("alerts.rules.timeouts.above") == str(path)
    assert got.source("alerts.rules.timeouts.severity") == str(world.etc)
    shown = [key for key, value, _ in got.describe() if value == "(set)"]
    assert shown == ["alerts.rules.timeouts.above", "alerts.rules.timeouts.severity", "alerts.channels.ops"]


def test_pinned_tables_of_alerts_win(world):
    world.write(world.etc, 'pinned = true\n[alerts.channels.ops]\nurl = "a"\n[alerts.rules.x]\nabove = 1')
    world.write(world.user, '[alerts.channels.ops]\nurl = "b"\n[alerts.rules.x]\nabove = 2')
    assert world.load().alerts == {"channels": {"ops": {"url": "a"}}, "rules": {"x": {"above": 1}}}


@pytest.mark.parametrize(
    "text, told",
    [
        (
            "[alerts]\nrule.x = 1",
            r"unknown key alerts.rule \(did you mean rules\? allowed: group_wait, .*, rules, channels\)",
        ),
        (
            "[alerts]\nrules = 1",
            r"alerts.rules must contain tables, not a number \(write \[alerts.rules.NAME\]\)",
        ),
        ("[alerts.rules]\nx = 1", r"alerts.rules.x must be a table, not a number"),
        ("[profiles.p.alerts]\nrules.x.above = 1", r"unknown key profiles.p.alerts.rules"),
    ],
)
def test_a_table_of_alerts_in_the_wrong_form_is_told(world, text, told):
    world.write(world.user, text)
    with pytest.raises(ConfigError, match=told):
        world.load()


# -- showing and checking ------------------------------------------------------------------------------------


def test_describe_is_what_a_file_would_say(world):
    world.environ["LOCKKIT_URL"] = "redis://ann:secret@h/1?password=secret"
    world.write(world.user, '[plugins.x]\napi_token = "secret"')
    rows = world.load(ttl=90, disable_plugins=("a",)).describe()
    assert ("url", '"redis://ann:***@h/1?password=***"', "LOCKKIT_URL") in rows
    assert ("ttl", '"90s"', "argument") in rows
    assert ("disable_plugins", '["a"]', "argument") in rows
    assert ("plugins.x.api_token", "(set)", str(world.user)) in rows
    assert "secret" not in str(rows)


@given(st.floats(min_value=0.001, max_value=1e8))
def test_a_duration_survives_being_written_down(value):
    setting = SETTINGS["ttl"]
    assert read(setting, tomllib.loads(f"x = {toml(setting, value)}")["x"]) == value


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(
        lambda text: "\0" not in text
    )
)
def test_a_text_survives_being_written_down(text):
    assert tomllib.loads(f"x = {toml(SETTINGS['state_dir'], text)}")["x"] == text


@pytest.mark.parametrize(
    "url, shown",
    [
        ("sqlite:", "sqlite:"),
        ("sqlite:///home/ann@corp/x.db", "sqlite:///home/ann@corp/x.db"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://ann@h", "redis://***@h"),
        ("redis://:pw@h/0", "redis://:***@h/0"),
        ("redis://ann:p@w:x@h1,h2/0?db=1", "redis://ann:***@h1,h2/0?db=1"),
        ("redis+cluster://h1:1,[::1]:2/0?user=ab", "redis+cluster://h1:1,[::1]:2/0?user=***"),
        ("redis+cluster://h1:1,[::1]:2/0?user=a@b", "redis+cluster://***"),
        ("redis://ann:p/w@h/0", "redis://***"),
        ("redis://ann:p?w#@h/0", "redis://***"),
        ("redis://ann:6379/pw@h/0", "redis://***"),
        ("redis://ann:pw:6379", "redis://***"),
        ("redis://:pw/0", "redis://***"),
        ("redis://ann:p/w?db=1", "redis://***"),
        ("redis:/ann:pw@h", "redis:***"),
        ("redis:ann:pw@h", "redis:***"),
        ("//ann:pw@h", "***"),
        ("ann:pw@h:6379", "ann:***"),
        ("memory:label", "memory:label"),
        ("sqlite:/home/ann@corp/x:y.db", "sqlite:/home/ann@corp/x:y.db"),
        ("unix:///run/a:b/redis.sock?db=1", "unix:///run/a:b/redis.sock?db=1"),
        ("postgres-lock://user:123/secret@host", "postgres-lock://***"),
        (
            "redis+sentinel://h/m?sentinel_user=ann&sentinel_password=x&sentinel_pasword=x&p%73swd=y&z",
            "redis+sentinel://h/m?sentinel_user=ann&sentinel_password=***&sentinel_pasword=***&***&***",
        ),
        ("redis://h?password=x&db=2&auth_token=y", "redis://h?password=***&db=2&auth_token=***"),
        (
            "rediss://h?key_file=/etc/k.pem&key_user=x&pass_file=x",
            "rediss://h?key_file=/etc/k.pem&key_user=***&pass_file=***",
        ),
        ("zk://h/a?auth=sasl&tick=2&ttl=9", "zk://h/a?auth=sasl&tick=2&ttl=9"),
        ("zk://h/a?auth=pw&tick=a:pw", "zk://h/a?auth=***&tick=***"),
        ("https://hooks.example.org/T0/pw?x=y&ttl=9", "https://hooks.example.org/***?x=***&ttl=9"),
    ],
)
def test_redact(url, shown):
    assert redact(url) == shown


@given(st.text(alphabet="ab:/?#@&=%. ", max_size=8), st.sampled_from(["", "ann"]))
def test_no_password_survives_redaction(noise, user):
    password = f"{noise}SECRET{noise}"
    assert "SECRET" not in redact(f"redis://{user}:{password}@host:6379/0?x=1")


@given(
    st.text(alphabet="ab:/?#&=%. ", max_size=4).filter(lambda text: not text.startswith("/")),
    st.sampled_from(
        ["redis://{}:{}", "redis://{}:{}:6379/0", "redis:/{}:{}@h", "redis:{}:{}@h:1", "{}:{}@h"]
    ),
    st.sampled_from(["", "ann"]),
)
def test_no_password_of_a_malformed_url_survives_redaction(noise, form, user):
    assert "SECRET" not in redact(form.format(user, f"{noise}SECRET"))


def test_check_tells_everything_that_is_wrong(world):
    world.write(world.etc, "ttll = 5\nscope = 'no'")
    world.write(world.user, "ttl = 0")
    world.write(world.project, "ttl = 5")
    world.environ["LOCKKIT_SCOPE"] = "x"
    findings = world.check()
    assert [finding.severity for finding in findings] == ["error", "error", "error", "ok", "error"]
    assert all(finding.message for finding in findings)


def test_check_looks_at_how_it_fits_together(world):
    world.write(world.etc, "pinned = true\nage_soft = 1")
    findings = world.check()
    assert [finding.severity for finding in findings] == ["ok", "error"]
    assert "pinned" in findings[0].message
    assert "age_soft" in findings[1].message


def test_load_names_the_first_and_counts_the_rest(world):
    world.write(world.user, "ttll = 5\nscope = 'no'\nstrict = 1")
    with pytest.raises(ConfigError, match=r"ttll \(and 2 more problems: lockkit config check\)"):
        world.load()


# -- reading again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["edit", "appear", "vanish"])
def test_a_changed_file_makes_it_stale(world, change):
    world.write(world.user, "ttl = 5")
    before = world.load(max_hold=5000)
    assert not before.stale()
    if change == "edit":
        world.write(world.user, "ttl = 50")
    elif change == "appear":
        world.write(world.etc, "ttl = 3")
    else:
        world.user.unlink()
    assert before.stale()
    after = before.reload()
    assert (after.ttl, after.max_hold) == ({"edit": 50.0, "appear": 5.0, "vanish": 30.0}[change], 5000.0)
    assert not after.stale()


def test_state_place_is_the_stated_one(world, tmp_path):
    world.environ["LOCKKIT_STATE_DIR"] = str(tmp_path / "s")
    assert world.load().state_place() == (tmp_path / "s", "LOCKKIT_STATE_DIR")
    assert world.load(state_dir=str(tmp_path / "k")).state_place() == (tmp_path / "k", "argument")


def test_loading_is_cheap(world):
    world.load()
    best = min(_timed(world.load) for _ in range(20))
    assert best < 0.005


def _timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.parametrize(
    "text", ["journal = true", "[journal]\nenabled = true", "[journal]\nenabled = true\nkeep = 3"]
)
def test_the_event_journal_is_turned_on_in_one_row_or_in_a_table(world, text):
    world.write(world.user, text)
    assert world.load().journal
    assert not config.load("memory:", environ={}, cwd="/", home="/", etc="/nonexistent").journal


@pytest.mark.parametrize(
    "word, near",
    [
        ("tll", "ttl"),
        ("namespac", "namespace"),
        ("recover", "recover_limit"),  # the beginning of one
        ("host", None),  # gpu_host has the letters, and is something else
        ("servers", None),
        ("alerts_", None),  # the beginning of several
        ("colour", None),
    ],
)
def test_no_word_is_suggested_rather_than_a_wrong_one(word, near):
    assert nearest(word, SETTINGS) == near
