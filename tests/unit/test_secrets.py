"""Where a URL is misspelt its password lands in a place of its own: none of them may be quoted."""

import io
import json
import re
import traceback
from contextlib import redirect_stderr, redirect_stdout
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lockkit import connect
from lockkit.cli.main import run
from lockkit.config import config
from lockkit.config.settings import SETTINGS
from lockkit.config.store_names import name_of
from lockkit.errors import BackendUnavailable, LockkitError
from lockkit.facts import Capabilities
from lockkit.hooks import hookimpl
from lockkit.plugins.checking import check_files
from lockkit.plugins.manager import PluginManager
from lockkit.plugins.stores import SCHEMES
from lockkit.store.spi import BackendSpec, Refused
from lockkit.values import redaction
from lockkit.values.redaction import redact, veiled

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

    module = import_module(f"lockkit_{store.rstrip('3')}.address")  # etcd3 reads the URLs of etcd
    address = module.parse(url)
    # What may be said of an address: all but the login.
    rest = address._replace(password=None, user=None)
    rest = rest._replace(sentinel=(None, None)) if store == "redis" else rest
    return f"{address!r} {tuple(rest)}"


@settings(max_examples=500, deadline=None)
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
        ('profiles = "redis://:topsecret@h"', "profiles must contain tables, not a text"),
        ('[plugins]\nalert = "https://h/topsecret"', "plugins.alert must be a table, not a text"),
        ('plugins = ["https://h/topsecret"]', "plugins must contain tables, not [a text]"),
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


# -- what cannot be parsed is hidden -------------------------------------------------------------------------


def readable(hosts: str) -> bool:
    """Whether a list of hosts can be parsed, by the standard library instead of lockkit."""
    try:
        for host in hosts.split(","):
            found = urlsplit(f"x://{host}")
            if found.netloc != host or "%" in host or (found.port or 0) < 0:
                return False
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("scheme", ["redis", "etcd", "zookeeper", "theirs", "unheard-of"])
@pytest.mark.parametrize(
    "place",
    [
        "ann:99999",  # a password of digits that is no port
        "h1,ann:70000/0",
        "[beef]",
        "[:::]:1",
        "ann%3Atopsecret%40h/0",  # a login whose separators were escaped, too
        "topsecret%40h",
        "h%zz",
    ],
)
def test_a_url_whose_hosts_cannot_be_parsed_is_its_scheme_and_stars(scheme, place):
    assert redact(f"{scheme}://{place}") == f"{scheme}://***"
    assert redact(f"{scheme}://u:pw@{place}?ttl=9") == f"{scheme}://***"


def test_hosts_that_can_be_parsed_are_shown():
    for url in ("redis://h:65535/0", "etcd://[::1]:2379,a-b.c_d~", "zk://10.0.0.1,[fe80::1]", "redis://:1"):
        assert redact(url) == url


def test_an_option_that_hides_others_behind_a_semicolon_is_not_shown():
    assert redact("redis://h?db=1;password=topsecret") == "redis://h?db=***"


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ah19:[]%.,~-f_", max_size=12))
def test_hosts_are_shown_only_where_they_can_be_parsed(hosts):
    shown = redact(f"redis://{hosts}/0")
    assert shown in (f"redis://{hosts}/0", "redis://***")
    assert shown == "redis://***" or readable(hosts)


@settings(max_examples=500, deadline=None)
@given(
    st.text(max_size=40) | st.builds("{}:{}".format, st.sampled_from(sorted(SCHEMES)), st.text(max_size=40))
)
def test_any_text_is_redacted_without_an_error_and_a_login_is_never_shown(text):
    for url in (text, f"{text}u:{SECRET}@h"):
        assert SECRET not in redact(url)
    assert redact(text).isprintable()


# -- one list of what is harmless ----------------------------------------------------------------------------

SECRET_OPTIONS = {"redis": {"sentinel_password"}, "zookeeper": {"observer", "auth"}}
"""Options of lockkit's own stores that are not shown, or not whatever their value is."""


def test_all_settings_but_the_url_may_be_shown_in_its_query():
    for setting in SETTINGS.keys() - {"url"}:
        for scheme in ("redis://h", "sqlite:", "new://h"):
            assert redact(f"{scheme}?{setting}=1") == f"{scheme}?{setting}=1"
    assert redact("redis://h?url=1") == "redis://h?url=***"


def test_every_option_of_a_store_is_either_shown_or_known_to_be_secret():
    from lockkit.store.certificates import OPTIONS as FILES
    from lockkit_redis import address as redis
    from lockkit_sqlite.place import OPTIONS
    from lockkit_zookeeper import address as zookeeper

    allowed = {
        "memory": set(),
        "sqlite": set(OPTIONS),
        "redis": {option for options in (redis._COMMON, *redis._OPTIONS.values()) for option in options},
        "etcd": set(FILES),
        "etcd3": set(FILES),
        "zookeeper": set(zookeeper._OPTIONS),
    }
    assert redaction.SHIPPED.keys() == SCHEMES.keys()
    for scheme, store in SCHEMES.items():
        secret = SECRET_OPTIONS.get(store.name, set())
        shown = {option for option in redaction.SHIPPED[scheme] if "=" not in option}
        assert shown == allowed[store.name] - secret


# -- a third party's store -----------------------------------------------------------------------------------


class Theirs:
    """A store that says too much when it cannot be opened."""

    def __init__(self, scheme="theirs", harmless=("pool", "mode=fast")):
        self.spec = BackendSpec(
            scheme, (scheme,), self.open, "theirs", Capabilities("fleet"), harmless=harmless
        )

    @hookimpl
    def lockkit_backends(self):
        return [self.spec]

    def open(self, url, options):
        try:
            raise ValueError(f"the driver cannot read {url!r}", url)
        except ValueError as error:
            password = url.partition("@")[0].rpartition(":")[2]
            found = BackendUnavailable(
                f"no login as {password} at {url}", hint=f"is {unquote(password)} right?"
            )
            raise Refused(found, retry=False) from error


def test_options_that_a_third_party_declares_are_shown_and_its_others_are_not():
    url = "some-theirs://ann:topsecret@h/db?pool=4&mode=fast&key=topsecret&ttl=9"
    assert redact(url) == "some-theirs://ann:***@h/***?pool=***&mode=***&key=***&ttl=9"
    PluginManager(plugins=[Theirs("some-theirs")]).backends()
    assert redact(url) == "some-theirs://ann:***@h/db?pool=4&mode=fast&key=***&ttl=9"
    assert redact(url.replace("fast", SECRET)).count("***") == 3


def test_nobody_declares_options_of_lockkits_own_stores_harmless():
    plugins = PluginManager(plugins=[Theirs("redis", ("password",))])
    plugins.backends()
    assert redact(f"redis://h?password={SECRET}") == "redis://h?password=***"


@pytest.mark.parametrize("password", [SECRET, "top%2Fsecret", "top%20secret"])
def test_an_error_of_a_third_partys_store_is_told_without_the_password(password):
    url = f"theirs://ann:{password}@h/db?token=alsosecret"
    client = connect(url, plugins=[Theirs()])
    with pytest.raises(BackendUnavailable) as raised:
        client.lock("x").acquire(timeout=0)
    shown = "".join(traceback.format_exception(raised.value)) + str(vars(raised.value))
    assert "no login as *** at theirs://ann:***@h/db?token=***" in shown
    for secret in (password, unquote(password), "alsosecret"):
        assert secret not in shown


# -- everything that is printed ------------------------------------------------------------------------------

SECRETIVE = (
    *("password", "sentinel_password", "sentinel_passwd", "sentinel_user2", "sslpassword", "observer", "url"),
    *("file", "token_file", "pass_path", "secret_name", "cert", "dir", "key", "db2", "Pool", "%70ool"),
)
WORDS = st.text(alphabet="abcxyz0189-_.~", min_size=1, max_size=8)
AROUND = st.text(alphabet="abxy01%:&=+;,!$'()* \u202e\x9b", max_size=4)


@st.composite
def urls_with_secrets(draw):
    """A URL, and the secrets in it."""
    scheme = draw(st.sampled_from([*sorted(SCHEMES), "theirs", "unheard-of"]))
    secrets = []

    def secret(more=AROUND):
        secrets.append(f"s3cret{len(secrets)}")
        return f"{draw(more)}{secrets[-1]}{draw(more)}"

    login = f"{draw(st.just('') | WORDS)}:{secret()}@" if draw(st.booleans()) else ""
    hosts = ",".join(draw(st.lists(WORDS, min_size=1, max_size=3)))
    path = draw(st.sampled_from(["", "/", "/0", "/a/b"]))
    options = []
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(SECRETIVE))
        options.append(f"{key}={secret(st.text(alphabet='abxy01%:=+ ', max_size=4))}")
    harmless = draw(
        st.lists(st.sampled_from(["ttl=30s", "namespace=a", "db=1", "pool=2", "tls=yes"]), max_size=2)
    )
    query = "&".join(draw(st.permutations([*options, *harmless])))
    return f"{scheme}://{login}{hosts}{path}" + (f"?{query}" if query else ""), secrets


@settings(max_examples=120, deadline=None)
@given(urls_with_secrets())
def test_no_secret_of_a_url_is_printed_anywhere(drawn):
    url, secrets = drawn
    shown = [redact(url), name_of(url), told(url)]
    try:
        client = connect(url, plugins=[Theirs()])
        shown += [repr(client), repr(client.config), str(vars(client)), client.url]
    except LockkitError as error:
        shown += ["".join(traceback.format_exception(error)), repr(error), str(vars(error))]
    for secret in secrets:
        assert secret not in "\n".join(shown)


@settings(max_examples=10, deadline=None)
@given(urls_with_secrets())
def test_no_secret_of_a_url_is_printed_by_a_command(drawn):
    url, secrets = drawn
    assume("\0" not in url)
    commands = [["config", "show"], ["config", "check"]]
    if url.partition(":")[0] in (
        "theirs",
        "unheard-of",
        "sqlite",
    ):  # no server is asked
        commands += [
            ["status"],
            ["explain", "x"],
            ["held", "x"],
            ["doctor"],
            ["bench", "uncontended", "--url", url],
        ]
    for words in commands:
        for more in ((), ("--json",)):
            out = io.StringIO()
            with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
                patch.setenv("LOCKKIT_URL", url)
                patch.setenv("HOME", "/nonexistent")
                run([*words, *more])
            assert out.getvalue()
            for secret in secrets:
                assert secret not in out.getvalue(), words


def test_a_config_is_shown_without_secrets_and_with_what_was_stated():
    loaded = config.load(
        f"redis://ann:{SECRET}@h/1?ttl=9s", environ={}, cwd="/", etc="/nonexistent", scope="fleet"
    )
    assert repr(loaded) == 'Config(url="redis://ann:***@h/1", ttl="9s", scope="fleet")'
    assert SECRET not in f"{loaded} {loaded!r}"


@pytest.mark.parametrize("key", ["ttl", "namespace", "scope", "strict", "disable_plugins", "max_hold"])
def test_a_login_in_the_place_of_another_setting_is_not_quoted(key):
    with pytest.raises(LockkitError) as raised:
        config.load(f"redis://h?{key}=ann:{SECRET}", environ={}, cwd="/", etc="/nonexistent")
    assert SECRET not in str(raised.value)
    assert key in str(raised.value)


@pytest.mark.parametrize("scheme", ["rediss", "etcds", "zookeepers"])
@pytest.mark.parametrize(
    "stated, path", [("~/no%20such.pem", "~/no such.pem"), ("/no+such", "/no such"), ("~/x", "~/x")]
)
def test_a_tls_file_that_cannot_be_read_is_told_as_it_was_stated(scheme, stated, path):
    both = "" if scheme != "etcds" else f"&cert_file={stated}&key_file={stated}"
    url = f"{scheme}://ann:{SECRET}@h?ca_file={stated}{both}"
    with pytest.raises(LockkitError) as raised:
        parsed(url)
    assert f"ca_file: cannot read {path}" in str(raised.value)
    assert SECRET not in str(raised.value)
