"""What `lockkit config check` says of a configuration that can be read but cannot work."""

import sys
from types import SimpleNamespace

import pytest

from lockkit import layers
from lockkit.hooks import hookimpl
from lockkit.plugins import PluginManager
from lockkit.plugins.checking import check_files
from lockkit.plugins.discovery import Installed
from lockkit.spi import BackendSpec
from lockkit_memory import CAPABILITIES


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """The findings that are not ok, for a user's file with this text."""
    monkeypatch.setattr(layers, "_warned", set())

    def check(text="", environ=None, entries=()):
        path = tmp_path / ".config/lockkit/config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        found = check_files(
            environ=environ or {},
            cwd=tmp_path,
            etc=tmp_path / "none.toml",
            home=tmp_path,
            discover=lambda: tuple(entries),
        )
        return [finding for finding in found if finding.severity != "ok"], path

    return check


ALERT = Installed("webhook", "lockkit_memory", "webhook-alert", "1.0")


def test_what_works_has_no_findings(checked):
    text = 'url = "memory:"\nttl = "5s"\ndisable_plugins = ["webhook", "redis"]\n[plugins.webhook-alert]\nrate = 3'

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
        ("memory:?bogus=1", "not a memory store: 'memory:?bogus=1'"),
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
    assert "ttl must be" in found[1].message


def test_a_store_that_cannot_judge_its_url_is_left_alone(tmp_path):
    spec = BackendSpec("mine", ("mine",), lambda url, options: None, "mine", CAPABILITIES)
    plugin = SimpleNamespace(lockkit_backends=hookimpl(lambda: [spec]))

    assert PluginManager([plugin]).check("mine://anything?at=all") is None


def test_a_disabled_store_is_an_error(checked):
    (finding,), _ = checked('url = "memory:"\ndisable_plugins = ["memory"]')

    assert finding.severity == "error"
    assert "memory, is disabled" in finding.message


def test_a_ttl_that_the_store_would_refuse_is_an_error_with_its_source(checked):
    (finding,), path = checked('ttl = "10ms"')

    assert finding.severity == "error"
    assert finding.message == "ttl must be at least 0.1 s on sqlite, not 0.01 s"
    assert finding.hint == f"ttl is from {path}"


def test_a_table_for_a_distribution_that_is_not_installed_is_a_warning(checked):
    (finding,), path = checked("[plugins.webhook-alrt]\nrate = 3", entries=[ALERT])

    assert finding.severity == "warning"
    assert (
        finding.message == f"[plugins.webhook-alrt] (from {path}) is for a distribution that is not installed"
    )
    assert finding.hint == "did you mean webhook-alert?"


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
    assert finding.message == "LOCKKIT_FOO is not a variable that lockkit knows; it is ignored"
    assert finding.hint == "", "nothing resembles it"
    assert not caplog.records


def test_a_file_that_is_wrong_by_itself_is_judged_by_that_alone(checked):
    (finding,), path = checked('url = "nosuch:"\nttll = 3')

    assert finding.message == f"{path}: unknown key ttll"
