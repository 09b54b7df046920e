"""Findings of `lockkit config check` about a configuration that can be read but cannot work."""

import sys
from types import ModuleType, SimpleNamespace

import msgspec
import pytest

import lockkit
from lockkit.config import config, layers
from lockkit.config.config import plugin_settings
from lockkit.errors import ConfigError, PluginError
from lockkit.hooks import hookimpl
from lockkit.plugins import PluginManager
from lockkit.plugins.checking import check_files
from lockkit.plugins.discovery import Installed
from lockkit.store.spi import BackendSpec
from lockkit_memory import CAPABILITIES


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """The findings that are not ok, for a user's file with this text."""
    monkeypatch.setattr(layers, "_warned", set())

    def check(text="", environ=None, entries=(), url=None, **options):
        path = tmp_path / ".config/lockkit/config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        found = check_files(
            url,
            **options,
            environ=environ or {},
            cwd=tmp_path,
            etc=tmp_path / "none.toml",
            home=tmp_path,
            discover=lambda: tuple(entries),
        )
        return [finding for finding in found if finding.severity != "ok"], path

    return check


def test_each_wrong_rule_and_channel_is_an_error_with_its_file_and_key(checked):
    found, path = checked(
        """
[alerts.rules.lost]
severety = "P0"
[alerts.rules.mine]
when = "count"
of = ["alert.lots"]
[alerts.rules.fine]
when = "count"
of = ["alert.lost"]
inhibits = ["mine", "nobody"]
[alerts.channels.pager]
type = "pagerduty"
[alerts.channels.mail]
url = "env:NOT_SET_HERE"
limit = "secret"
"""
    )

    assert {finding.severity for finding in found} == {"error"}
    messages = [finding.message for finding in found]
    assert all(str(path) in message for message in messages)
    for told in (
        "[alerts.rules.lost] severety: unknown key",
        "[alerts.rules.mine] of: nothing is called 'alert.lots'",
        "[alerts.rules.fine] inhibits: there is no rule 'nobody'",
        "[alerts.channels.pager]: key is missing",
        "[alerts.channels.mail]: limit must be",
    ):
        assert sum(told in message for message in messages) == 1, messages
    assert len(messages) == 5
    assert not any("secret" in message for message in messages)


ALERT = Installed("webhook", "lockkit_memory", "webhook-alert", "1.0")


def test_what_works_has_no_findings(checked):
    text = (
        'url = "memory:"\nttl = "5s"\ndisable_plugins = ["webhook", "redis"]\n'
        "[plugins.webhook-alert]\nrate = 3"
    )

    assert checked(text, entries=[ALERT])[0] == []


@pytest.mark.parametrize("url", ["nosuch://h", "postgres:/x"])
def test_a_url_without_a_store_is_an_error_with_its_source(checked, url):
    (finding,), path = checked(f'url = "{url}"')

    assert finding.severity == "error"
    assert finding.message == f"no plugin offers {url.partition(':')[0]}: URLs"
    assert f"url is from {path}; " in finding.hint


@pytest.mark.parametrize(
    "url, told",
    [
        ("redis://h?bogus=1", "no such option: bogus"),
        ("redis://h/abc", "the database must be a whole number, not 'abc'"),
        ("etcd://h?bogus=1", "no such option: bogus"),
        ("zookeeper://h?bogus=1", "no such option: bogus"),
        ("sqlite:relative.db", "not the absolute path of a file: 'relative.db'"),
        ("memory:?bogus=1", "not a memory store: 'memory:?bogus=***'"),
    ],
)
def test_a_url_that_its_store_would_refuse_is_an_error_with_its_source(checked, url, told):
    found, path = checked(f'url = "{url}"\nttl = "20s"')

    (finding,) = found
    assert finding.severity == "error"
    assert told in finding.message
    assert f"url is from {path}; " in finding.hint


@pytest.mark.parametrize(
    "url, library, extra",
    [
        ("redis://h", "redis", "redis"),
        ("zookeeper://h", "kazoo", "zookeeper"),
    ],
)
def test_a_client_library_that_is_missing_is_an_error_that_says_what_to_install(
    checked, monkeypatch, url, library, extra
):
    monkeypatch.setitem(sys.modules, library, None)
    (finding,), path = checked(f'url = "{url}"\nttl = "20s"')

    assert finding.severity == "error"
    assert finding.message == f"{url.partition(':')[0]}: URLs need {library}, which is not installed"
    assert finding.hint == f'url is from {path}; pip install "lockkit[{extra}]"'


def test_all_that_is_wrong_with_a_store_is_told_at_once(checked):
    found, _ = checked('url = "etcd://h?bogus=1"\nttl = "10ms"')

    assert ["bogus" in finding.message for finding in found] == [True, False]
    assert "a ttl of 0.01 s was asked for" in found[1].message


def test_a_store_that_cannot_judge_its_url_is_left_alone(tmp_path):
    spec = BackendSpec("mine", ("mine",), lambda url, options: None, "mine", CAPABILITIES)
    plugin = SimpleNamespace(lockkit_backends=hookimpl(lambda: [spec]))

    assert PluginManager([plugin]).check("mine://anything?at=all") is None


def test_a_disabled_store_is_an_error(checked):
    (finding,), _ = checked('url = "memory:"\ndisable_plugins = ["memory"]')

    assert finding.severity == "error"
    assert "memory, is disabled" in finding.message


def test_a_ttl_in_place_of_which_the_store_grants_another_is_a_warning_with_its_source(checked):
    (finding,), path = checked('ttl = "10ms"')

    assert finding.severity == "warning"
    assert finding.message.startswith("a ttl of 0.01 s was asked for, and sqlite grants 0.1 s")
    assert finding.hint == f"ttl is from {path}"


def test_a_ttl_that_strict_refuses_is_an_error_with_its_source(checked):
    (finding,), path = checked('ttl = "10ms"\nstrict = true')

    assert finding.severity == "error"
    assert finding.message == "strict refuses a ttl of 0.01 s, because this store grants 0.1 s instead"
    assert f"this ttl comes from: {path}" in finding.hint


def test_a_ttl_that_nobody_has_set_is_fitted_without_a_finding(checked):
    found, _ = checked('url = "zookeeper://h?tick=0.5"\nstrict = true')

    assert [finding for finding in found if "ttl" in finding.message] == []


def test_a_table_for_a_distribution_that_is_not_installed_is_a_warning(checked):
    (finding,), path = checked("[plugins.webhook-alrt]\nrate = 3", entries=[ALERT])

    assert finding.severity == "warning"
    assert (
        finding.message == f"[plugins.webhook-alrt] (from {path}) is for a distribution that is not installed"
    )
    assert finding.hint == "did you mean webhook-alert?"


def test_a_command_that_is_suggested_for_a_table_quotes_its_name(checked):
    (finding,), _ = checked('[plugins."x; touch y #"]\na = 1')

    assert finding.hint == "pip install 'x; touch y #', or remove it"


def test_a_table_for_a_distribution_without_entry_points_is_right(checked):
    assert checked("[plugins.pytest]\nrate = 3")[0] == [], "its plugin may be given in code"


def test_a_switch_for_a_plugin_that_is_not_there_is_a_warning(checked):
    (finding,), path = checked('disable_plugins = ["webhok", "Webhook_Alert", "all"]', entries=[ALERT])

    assert finding.severity == "warning"
    assert finding.message == f"disable_plugins (from {path}): there is no plugin 'webhok'"
    assert finding.hint == "did you mean webhook?"


def test_an_unknown_variable_is_a_warning_and_not_logged_beside_it(checked, caplog):
    (finding,), _ = checked(environ={"LOCKKIT_FOO": "1"})

    assert finding.severity == "warning"
    assert finding.message == "the environment variable LOCKKIT_FOO is unknown to lockkit and is ignored"
    assert finding.hint == "", "nothing resembles it"
    assert not caplog.records


@pytest.mark.parametrize(
    "options, told",
    [
        ({"profile": "nosuch"}, "there is no profile 'nosuch'"),
        ({"url": "nosuch://h"}, "no plugin offers nosuch: URLs"),
        ({"url": "redis://h?ttl=abc&timeout"}, "ttl must be a duration, not 'abc'"),
        ({"namespace": "a b"}, "argument: not a namespace: 'a b'"),
    ],
)
def test_the_options_of_the_command_line_are_looked_at(checked, options, told):
    found, _ = checked(**options)

    assert {finding.severity for finding in found} == {"error"}
    assert told in found[0].message


def test_a_mistake_in_a_profile_that_is_not_in_use_is_an_error_with_its_source(checked):
    text = 'ttl = "20s"\n[profiles.a]\nurl = "redis://h?bogus=1"\n[profiles.b]\nkill_after = "20s"'
    found, path = checked(text)

    assert [finding.severity for finding in found] == ["error", "error"]
    assert "must be less than ttl" in found[0].message
    assert f"kill_after (20 s, from {path} [profiles.b])" in found[0].message
    assert "bogus" in found[1].message
    assert f"url is from {path} [profiles.a]" in found[1].hint
    assert checked(text, profile="a")[0] == checked(text, environ={"LOCKKIT_PROFILE": "a"})[0]


@pytest.mark.parametrize(
    "setting, told",
    [
        ('url = "nosuch://h"', "no plugin offers"),
        ('url = "redis://h"', "not installed"),
        ('state_dir = "/dev/null/x"', "cannot use /dev/null/x"),
    ],
)
def test_what_this_machine_lacks_for_a_profile_is_a_warning_until_that_is_in_use(
    checked, monkeypatch, setting, told
):
    monkeypatch.setitem(sys.modules, "redis", None)
    for profile, severity in ((None, "warning"), ("a", "error")):
        (finding,), _ = checked(f"[profiles.a]\n{setting}", profile=profile)
        assert finding.severity == severity
        assert told in finding.message


def test_a_mistake_outside_of_profiles_is_told_once(checked):
    found, _ = checked('url = "nosuch://h"\n[profiles.a]\nttl = "5s"\n[profiles.b]\nttl = "6s"')

    assert [finding.severity for finding in found] == ["error"]


@pytest.mark.parametrize(
    "scope, works", [("process", True), ("user", True), ("host", False), ("fleet", False)]
)
def test_a_scope_that_the_store_does_not_reach_is_an_error(checked, scope, works):
    found, path = checked(f'scope = "{scope}"')

    assert works == (not found)
    told = (
        f"sqlite: keeps apart only the processes of one user on one host, but scope is '{scope}' (from "
        f"{path})"
    )
    assert works or found[0].message == told


@pytest.mark.parametrize(
    "url, folder, told",
    [
        ("sqlite:", "rel/dir", "state_dir must be an absolute path, not 'rel/dir'"),
        ("memory:", "rel/dir", "state_dir must be an absolute path, not 'rel/dir'"),
        ("sqlite:", "/dev/null/x", "cannot use /dev/null/x: Not a directory"),
        ("sqlite:", "{tmp}/.config/lockkit/config.toml", "File exists"),
        ("sqlite:", "{tmp}/open", "others may write to"),
    ],
)
def test_a_state_folder_that_cannot_be_used_is_an_error(checked, tmp_path, url, folder, told):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (finding,), path = checked(f'url = "{url}"\nstate_dir = "{folder.replace("{tmp}", str(tmp_path))}"')

    assert finding.severity == "error"
    assert told in finding.message
    assert str(path) in finding.message + finding.hint


def test_a_state_folder_that_is_not_there_yet_is_right_and_stays_away(checked, tmp_path):
    assert checked(f'state_dir = "{tmp_path}/a/b"')[0] == []
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / ".local").exists()


def test_mistakes_of_several_kinds_are_told_at_once(checked):
    text = 'url = "nosuch://h"\nttl = "10s"\nkill_after = "20s"\nmax_hold = "5s"\nmin_hold = "6s"'
    found, _ = checked(text)

    told = [finding.message for finding in found]
    assert len(told) == 3
    assert "min_hold" in told[0]
    assert "kill_after" in told[1]
    assert "nosuch" in told[2]


def test_every_mistake_in_a_urls_query_is_told(checked):
    found, _ = checked('url = "redis://h?ttl=abc&timeout"')

    assert ["ttl must be" in finding.message for finding in found] == [True, False]
    assert "timeout has no value" in found[1].message
    assert "config check" not in str(found)


def test_a_file_that_is_wrong_by_itself_is_judged_by_that_alone(checked):
    (finding,), path = checked('url = "nosuch:"\nttll = 3')

    assert finding.message == f"{path}: unknown key ttll"


# -- the tables of plugins, as the plugins judge them


class Webhook:
    """A plugin that wants one number."""

    seen = None

    @hookimpl
    def lockkit_settings(self, config):
        table = config.plugins.get("webhook-alert", {})
        self.seen = int(table.get("rate", 1))
        if self.seen < 0:
            raise ConfigError("rate is too small", hint="use a larger one")


@pytest.fixture
def webhook(monkeypatch):
    monkeypatch.setitem(sys.modules, "judging_webhook", ModuleType("judging_webhook"))
    sys.modules["judging_webhook"].plugin = plugin = Webhook()
    return plugin


JUDGING = Installed("webhook", "judging_webhook:plugin", "webhook-alert", "1.0")


@pytest.mark.parametrize(
    "table, told, hint",
    [
        ("rate = -1", "rate is too small", "use a larger one"),
        (
            'rate = "x"',
            (
                "plugin webhook: its settings cannot be read: "
                "ValueError: invalid literal for int() with base 10: 'x'"
            ),
            (
                "correct its table [plugins.<distribution>], "
                "or leave the plugin out: disable_plugins = ['webhook']"
            ),
        ),
    ],
)
def test_a_table_that_its_plugin_refuses_is_one_error(checked, webhook, table, told, hint):
    text = f"[profiles.a]\nttl = '5s'\n[plugins.webhook-alert]\n{table}"
    (finding,), _ = checked(text, entries=[JUDGING])

    assert finding[1:] == ("error", told, hint)
    assert checked(f"disable_plugins = ['webhook']\n{text}", entries=[JUDGING])[0] == []


def test_a_table_that_its_plugin_accepts_has_no_finding(checked, webhook):
    assert checked("[plugins.webhook-alert]\nrate = 3", entries=[JUDGING])[0] == []
    assert webhook.seen == 3


def test_connect_refuses_a_table_that_a_plugin_refuses(webhook, tmp_path):
    def connect(rate):
        file = tmp_path / "file.toml"
        file.write_text(f"[plugins.webhook-alert]\nrate = {rate}")
        return lockkit.connect(config=config.load("memory:", config=file, environ={}), plugins=[webhook])

    with pytest.raises(ConfigError, match="rate is too small"):
        connect(-1)
    connect(4).close()
    assert webhook.seen == 4


def test_a_table_that_no_plugin_checks_is_told_and_one_for_our_own_stores_is_a_warning(tmp_path):
    file = tmp_path / "file.toml"
    file.write_text("[plugins.webhook-alert]\nrate = 3\n[plugins.lockkit]\nx = 1\n")
    found = check_files(
        "memory:",
        environ={},
        etc=tmp_path / "no",
        config=file,
        discover=lambda: (ALERT,),
        cwd=tmp_path,
        home=tmp_path,
    )

    told = {finding.message.partition(" (from ")[0]: finding for finding in found}
    assert told["[plugins.webhook-alert]"].severity == "ok"
    assert "is not checked" in told["[plugins.webhook-alert]"].message
    assert told["[plugins.lockkit]"].severity == "warning"


def test_each_channel_that_cannot_be_used_here_is_an_error_by_its_name(checked, monkeypatch, tmp_path):
    monkeypatch.delenv("PAGER_KEY", raising=False)
    monkeypatch.setenv("CHAT_URL", "nosuch://a-secret-token/room")
    text = f"""
[alerts.channels.variable]
type = "pagerduty"
key = "env:PAGER_KEY"
[alerts.channels.file]
type = "dingtalk"
key = "file:{tmp_path}/missing"
[alerts.channels.scheme]
url = "env:CHAT_URL"
[alerts.channels.address]
type = "alertmanager"
url = "ftp://alerts.example.com"
[alerts.channels.trust]
type = "alertmanager"
url = "https://alerts.example.com"
ca_file = "{tmp_path}/missing.pem"
[alerts.channels.fine]
type = "alertmanager"
url = "https://alerts.example.com"
"""
    found, path = checked(text)

    told = {one.message.partition("[alerts.channels.")[2].partition("]")[0]: one for one in found}
    assert list(told) == ["variable", "file", "scheme", "address", "trust"]
    for name, words in {
        "variable": "the variable PAGER_KEY is not set",
        "file": f"cannot read {tmp_path}/missing",
        "scheme": "apprise",  # which is not installed, or does not know the scheme
        "address": "must begin with https:// or http://",
        "trust": f"cannot read {tmp_path}/missing.pem",
    }.items():
        assert words in told[name].message
        assert told[name].message.startswith(str(path))
        assert (told[name].severity, told[name].check) == ("error", "config")
    assert "a-secret-token" not in str(found)


class Needing:
    """A plugin that needs a setting without a default."""

    told = ()

    class Settings(msgspec.Struct, forbid_unknown_fields=True):
        url: str

    @hookimpl
    def lockkit_settings(self, config):
        self.settings = plugin_settings(config, "webhook-alert", self.Settings)

    @hookimpl
    def lockkit_event(self, event):
        self.told += (event,)


class Cleaning(Needing):
    """The same with a cleanup hook."""

    @hookimpl
    def lockkit_cleanup(self, context):
        """Do nothing."""


def manager(plugin, monkeypatch, **options):
    monkeypatch.setitem(sys.modules, "judging_webhook", ModuleType("judging_webhook"))
    sys.modules["judging_webhook"].plugin = plugin
    return PluginManager(discover=lambda: [JUDGING], **options)


def loaded(tmp_path, table=""):
    file = tmp_path / "file.toml"
    file.write_text(f"[plugins.webhook-alert]\n{table}" if table else "")
    return config.load("memory:", config=file, environ={}, etc=tmp_path / "none")


MISSING = "no configuration file has a table [plugins.webhook-alert]: Object missing required field `url`"


def test_a_plugin_whose_table_is_missing_is_reported_and_left_out(tmp_path, monkeypatch, checked, caplog):
    plugins = manager(Needing(), monkeypatch)
    plugins.check_settings(loaded(tmp_path))

    (info,) = [each for each in plugins.describe() if each.name == "webhook"]
    assert (info.error, info.hooks) == (f"not used: {MISSING}", ())
    assert plugins.implementations("lockkit_event") == plugins.implementations("lockkit_settings") == ()
    assert f"plugin webhook: not used: {MISSING}" in caplog.text
    (finding,), _ = checked('url = "memory:"', entries=[JUDGING])
    assert finding[1:3] == ("warning", f"plugin webhook: not used: {MISSING}")


def test_a_plugin_whose_table_is_wrong_is_not_left_out(tmp_path, monkeypatch):
    plugins = manager(Needing(), monkeypatch)
    with pytest.raises(ConfigError, match=r"file.toml: \[plugins.webhook-alert\]"):
        plugins.check_settings(loaded(tmp_path, "uri = 1"))
    assert plugins.implementations("lockkit_event")


def test_the_refusal_of_a_missing_table_names_the_file_and_the_lines_that_mend_it(tmp_path, monkeypatch):
    with pytest.raises(ConfigError) as caught:
        manager(Cleaning(), monkeypatch).check_settings(loaded(tmp_path))

    hint = caught.value.hint
    assert f"add to {tmp_path}/file.toml, or for all users to {tmp_path}/none, these lines: " in hint
    assert "[plugins.webhook-alert], url = ... (allowed: url)" in hint
    out = 'disable_plugins = ["webhook-alert"]'
    assert out in hint
    (tmp_path / "file.toml").write_text(out)
    config_without = config.load("memory:", config=tmp_path / "file.toml", environ={}, etc=tmp_path / "none")
    manager(Cleaning(), monkeypatch, disabled=config_without.disable_plugins).check_settings(config_without)


@pytest.mark.parametrize("options, error", [({}, ConfigError), ({"raise_errors": True}, PluginError)])
def test_a_missing_table_is_refused_for_a_cleanup_and_in_development(tmp_path, monkeypatch, options, error):
    plugins = manager(Needing() if options else Cleaning(), monkeypatch, **options)
    with pytest.raises(error, match="no configuration file has a table"):
        plugins.check_settings(loaded(tmp_path))


def test_a_missing_table_is_refused_for_a_plugin_that_was_given_in_code(tmp_path):
    with pytest.raises(ConfigError, match="no configuration file has a table"):
        lockkit.connect(config=loaded(tmp_path), plugins=[Needing()])


@pytest.mark.parametrize("url, refused", [("shelf://x", True), ("memory:", False)])
def test_a_missing_table_is_refused_for_the_store_in_use(tmp_path, monkeypatch, url, refused):
    class Shelf(Needing):
        @hookimpl
        def lockkit_backends(self):
            return [BackendSpec("shelf", ("shelf",), None, None, "", CAPABILITIES)]

    plugins = manager(Shelf(), monkeypatch)
    found = plugins.misfits(loaded(tmp_path)._replace(url=url))
    assert [error.message for error in found] == ([MISSING] if refused else [])
    assert ("shelf" in plugins.backends()) == refused
