"""A store with less reach than ``scope`` is refused; the error names the way out that this host has."""

from __future__ import annotations

import pytest

import lockkit
from lockkit.config import config
from lockkit.errors import ConfigError

STORE = "sqlite:/srv/locks/host.db"


@pytest.fixture
def etc(tmp_path):
    """The administrator's file, as ``lockkit host init`` leaves it."""
    file = tmp_path / "etc.toml"
    file.write_text(f'url = "{STORE}"\nscope = "host"\n')
    return file


@pytest.fixture
def refused(tmp_path, etc):
    def refused(url=None, *, reach="process", environ=None, text="", **keywords):
        user = tmp_path / "user.toml"
        user.write_text(text)
        loaded = config.load(url, config=user, environ=environ or {}, etc=etc, home=tmp_path, **keywords)
        with pytest.raises(ConfigError) as caught:
            loaded.check_scope(reach)
        return caught.value.hint

    return refused


@pytest.mark.parametrize(
    "how, where, way",
    [
        (
            {"url": "memory:"},
            "the URL was given in the call, or with --url",
            "leave the URL out",
        ),
        ({"environ": {"LOCKKIT_URL": "memory:"}}, "the URL is from LOCKKIT_URL", "unset LOCKKIT_URL"),
        ({"text": 'url = "memory:"'}, "the URL is from {user}", "remove url from {user}"),
    ],
)
def test_a_host_with_a_store_of_all_users_is_told_how_to_use_it(refused, tmp_path, how, where, way):
    hint = refused(**how).replace(str(tmp_path / "user.toml"), "{user}")

    assert hint.startswith(f"{where}; to use {STORE}, which {tmp_path / 'etc.toml'} names: {way}; ")
    assert "host init" not in hint
    assert hint.endswith("; see: lockkit docs all-users")


def test_a_program_on_its_own_is_told_how_to_ask_for_less(refused):
    hint = refused("memory:")

    assert '; for a try in one program: LOCKKIT_SCOPE=process, or connect(..., scope="process"); ' in hint
    assert "scope=" not in refused("sqlite:", reach="user")


@pytest.mark.parametrize("how", [{"environ": {"LOCKKIT_SCOPE": "process"}}, {"scope": "process"}])
def test_the_way_to_ask_for_less_works(tmp_path, etc, how):
    loaded = config.load("memory:", config="/dev/null", etc=etc, home=tmp_path, **{"environ": {}} | how)

    loaded.check_scope("process")


def test_a_pinned_scope_leaves_only_the_keyword(refused, etc):
    etc.write_text(f"pinned = true\n{etc.read_text()}")

    hint = refused("memory:", environ={"LOCKKIT_SCOPE": "process"})
    assert '; for a try in one program: connect(..., scope="process"); ' in hint
    assert "LOCKKIT_SCOPE" not in hint


@pytest.mark.parametrize("text", ['scope = "host"', f'scope = "host"\nurl = "{STORE}"', "scope = "])
def test_an_administrator_who_named_no_other_store_is_told_to_make_one(refused, etc, text, tmp_path):
    loaded = config.load(STORE, config="/dev/null", environ={}, etc=etc, home=tmp_path)
    etc.write_text(text)

    with pytest.raises(ConfigError) as caught:
        loaded.check_scope("user")

    assert "lockkit host init --group GROUP" in caught.value.hint


@pytest.mark.parametrize(
    "text, refuses", [(f'url = "{STORE}"', True), ('ttl = "45s"', False), ("url = ", False)]
)
def test_a_default_that_has_changed_since_is_not_opened_any_more(etc, tmp_path, text, refuses):
    """New programs lock in the store that the file names; a changed default matters to no other program."""
    etc.unlink()
    loaded, named = (
        config.load(
            url, config="/dev/null", environ={}, etc=etc, home=tmp_path, state_dir=str(tmp_path / "state")
        )
        for url in (None, "sqlite:")
    )
    etc.write_text(text)

    with lockkit.connect(config=named) as client:
        client.lock("x").acquire().release()
    with lockkit.connect(config=loaded) as client:
        if refuses:
            with pytest.raises(ConfigError, match="start this program again"):
                client.lock("x").acquire()
        else:
            client.lock("x").acquire().release()
