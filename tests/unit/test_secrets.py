"""Where a URL is misspelt its password lands in a place of its own: none of them may be quoted."""

import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lockkit import config
from lockkit.cli.main import run
from lockkit.errors import LockkitError
from lockkit.plugins.checking import check_files
from lockkit.plugins.manager import PluginManager
from lockkit.plugins.stores import SCHEMES
from lockkit.settings import redact, veiled

SECRET = "topsecret"
NETWORK = sorted(SCHEMES.keys() - {"memory", "sqlite", "unix"})
TAILS = ("", ":6379", ":6379/0", ",g:1/x/0", "/x?ca_file=/x", "?db=1", "/run/x.sock")


@st.composite
def misspelt(draw: st.DrawFn) -> str:
    scheme = draw(st.sampled_from(sorted(SCHEMES)))
    user = draw(st.sampled_from(["", "u"]))
    around = draw(st.sampled_from(["{}", "a{}", "1/{}", "a?{}", "{}=", "a={}", "a&{}", "a#{}"]))
    url = f"{scheme}://{user}:{around.format(SECRET)}@h{draw(st.sampled_from(TAILS))}"
    for _ in range(draw(st.integers(0, 2))):
        places = [place for place, char in enumerate(url) if char in ":/@?"]
        place = draw(st.sampled_from(places))
        char = draw(st.sampled_from(["", url[place] * 2, *":/@?;"]))
        url = url[:place] + char + url[place + 1 :]
    before, _, after = url.partition(SECRET)
    login = scheme in NETWORK and ":" in before.removeprefix(scheme).lstrip(":/")
    # With neither the colon nor the "@" of a login it is a host or a path like any other.
    near = before.rpartition(":")[2]
    assume(
        "@" in after.partition("?ca_file")[0] or (login and "@" not in near and not re.match(r"1[/?#]", near))
    )
    if scheme == "sqlite":
        # A path may well have an "@" in a folder's name.
        assume(":" in before.removeprefix("sqlite:") or not re.match("sqlite:(/|///+)(?!/)", before))
    return url


def told(url: str) -> str:
    """All that is said of a URL without asking a server."""
    out = io.StringIO()
    environ = {"LOCKKIT_URL": url, "HOME": "/nonexistent"}
    for stated, variables in ((None, environ), (url, {"HOME": "/nonexistent"})):
        for finding in check_files(stated, environ=variables, cwd="/", etc="/nonexistent"):
            print(finding, file=out)
    try:
        loaded = config.load(environ=environ, cwd="/", etc="/nonexistent")
        print(loaded.describe(), file=out)
        print(PluginManager().backend(loaded.url).name, parsed(loaded.url), file=out)
    except LockkitError as error:
        print(str(error), error.hint, error.message, file=out)
    return out.getvalue()


def parsed(url: str) -> str:
    scheme = url.partition(":")[0].lower()
    store = SCHEMES[scheme].name
    if store == "memory":
        return ""
    if store == "sqlite":
        from lockkit_sqlite.place import locate

        return repr(locate(url, "/nonexistent"))
    from importlib import import_module

    module = import_module(f"lockkit_{store}.address")
    address = module.parse(url)
    # What may be said of an address: all but the login.
    rest = address._replace(password=None, user=None)
    rest = rest._replace(sentinel=(None, None)) if store == "redis" else rest
    return f"{address!r} {tuple(rest)}"


@settings(max_examples=1500, deadline=None)
@given(misspelt())
@example("redis:///u:topsecret@h")
@example("redis:/u:topsecret@h")
@example("redis:u:topsecret@h")
@example("redis::topsecret@h")
@example("valkey+cluster:u:topsecret@h")
@example("valkey+sentinel:/u:topsecret@h/kit")
@example("redis:://u:topsecret@h")
@example("rediss:/u:topsecret@h")
@example("redis//u:topsecret@127.0.0.1")
@example("redis;//u:topsecret@127.0.0.1")
@example("zookeeper:://u:topsecret@h")
@example("zookeeper://u/topsecret@h")
@example("zookeeper://u?tick=topsecret@h")
@example("unix:/u:topsecret@h")
@example("sqlite:u:topsecret@h")
@example("sqlite:/u:topsecret@h")
@example("memory:u:topsecret@h")
@example("memory://[u:topsecret@h")
@example("sqlite://u:topsecret℀@h")
@example("redis://u:topsecret℀@h")
@example("rediss://topsecret@h")
@example("redis://u?topsecret@h")
@example("redis://u:topsecret\0@h")
@example("zookeeper://h?observer=watcher:topsecret")
def test_the_password_of_a_misspelt_url_is_quoted_nowhere(url):
    assert SECRET not in redact(url)
    assert SECRET not in told(url)


@pytest.mark.parametrize(
    "url", ["redis:///u:topsecret@h", "sqlite:u:topsecret@h", "unix:/u:topsecret@h", "rediss://topsecret@h"]
)
@pytest.mark.parametrize("words", [("config", "show"), ("config", "check"), ("status",), ("doctor",)])
def test_no_command_prints_the_password_of_a_misspelt_url(words, url, monkeypatch, tmp_path):
    monkeypatch.setenv("LOCKKIT_URL", url)
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for more in ((), ("--json",)):
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            run([*words, *more])
        assert out.getvalue()
        assert SECRET not in out.getvalue()


@pytest.mark.parametrize(
    "text, told",
    [
        ('url = ["redis://:topsecret@h1", "topsecret"]', "url must be a text, not [a text, a text]"),
        ('url = {redis = "topsecret"}', "url must be a text, not a table"),
        ('[profiles]\ngpu = "redis://:topsecret@h"', "profiles.gpu must be a table, not a text"),
        ('[profiles]\ngpu = ["topsecret"]', "profiles.gpu must be a table, not [a text]"),
        ('profiles = "redis://:topsecret@h"', "profiles must hold tables, not a text"),
        ('[plugins]\nalert = "https://h/topsecret"', "plugins.alert must be a table, not a text"),
        ('plugins = ["https://h/topsecret"]', "plugins must hold tables, not [a text]"),
        ('ttl = ["topsecret"]', "not [a text]"),
        ('namespace = {a = "topsecret"}', "namespace must be a text, not a table"),
        ('namespace = "redis://:topsecret@h"', "namespace must be a text, not 'redis://:***@h'"),
        ('ttl = "redis://:topsecret@h"', "not 'redis://:***@h'"),
        ('[profiles.x]\nscope = "redis://:topsecret@h"', "not 'redis://:***@h'"),
        ('pinned = "topsecret"', "pinned must be true or false, not a text"),
    ],
)
def test_what_has_the_wrong_shape_is_told_by_its_shape(text, told, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(text)
    findings = check_files(environ={}, cwd="/", etc=path, home=tmp_path)
    assert any(told in finding.message for finding in findings)
    assert SECRET not in str(findings)


@pytest.mark.parametrize(
    "text, told",
    [
        ('disable_plugins = ["redis://:topsecret@h"]', "there is no plugin 'redis://:***@h'"),
        ('"redis://:topsecret@h" = 1', "unknown key redis://:***@h"),
        ('[profiles]\n"redis://:topsecret@h" = 3', "profiles.redis://:***@h must be a table"),
        ('[profiles."redis://:topsecret@h"]\nno = 3', "unknown key profiles.redis://:***@h.no"),
        ('[profiles."redis://:topsecret@h"]\nttl = "1h"\nurl = "memory:"', "[profiles.redis://:***@h]"),
        ('[profiles."redis://:topsecret@h"]\nurl = "nosuch://h"', "[profiles.redis://:***@h]"),
        ('[plugins."redis://:topsecret@h"]\na = 1', "[plugins.redis://:***@h]"),
        ('[plugins]\n"redis://:topsecret@h" = 1', "plugins.redis://:***@h must be a table"),
    ],
)
def test_a_url_that_stands_for_a_name_is_redacted(text, told, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(text)
    findings = check_files(environ={}, cwd="/", etc=path, home=tmp_path)
    assert any(told in finding.message for finding in findings)
    assert SECRET not in str(findings)
    try:
        shown = config.load(environ={}, cwd="/", etc=path, home=tmp_path).describe()
    except LockkitError as error:
        shown = [str(error)]
    assert SECRET not in str(shown)
    environ = {"LOCKKIT_PROFILE": "nowhere"}
    with pytest.raises(LockkitError) as raised:
        config.load(environ=environ, cwd="/", etc=path, home=tmp_path)
    assert SECRET not in str(raised.value)


def test_a_url_that_stands_for_a_profile_is_redacted():
    with pytest.raises(LockkitError, match=r"there is no profile 'redis://:\*\*\*@h'") as raised:
        config.load(environ={"LOCKKIT_PROFILE": "redis://:topsecret@h"}, cwd="/", etc="/nonexistent")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "part, told",
    [("pw", "***"), ("u:pw", "***"), ("h", "h"), ("/0", "/0")],
)
def test_a_part_of_a_url_is_quoted_if_the_redacted_url_shows_it(part, told):
    assert veiled(part, redact("redis://u:pw@h/0")) == told


def test_a_harmless_option_is_shown_and_a_hash_is_not():
    assert redact("zookeeper://h?auth=sasl&observer=w:x") == "zookeeper://h?auth=sasl&observer=***"
    assert json.dumps(redact("x://h?auth=abc")) == '"x://h?auth=***"'
