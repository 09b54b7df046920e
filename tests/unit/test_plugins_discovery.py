"""Finding entry points: the same answer as the standard library's, at a fraction of its price."""

import os
import re
import sys
import zipfile
from importlib import metadata

import pytest

from lockkit.config.layers import canonical
from lockkit.plugins import discovery

# What Python itself imports late must stay in reach; other distributions must not.
STDLIB = [entry for entry in sys.path if entry.startswith(sys.base_prefix) and "-packages" not in entry]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path, and a function that installs a distribution into it."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *STDLIB])

    def install(name, entry_points, version="1.0", folder=tmp_path, form="{name}-{version}.dist-info"):
        info = folder / form.format(name=name, version=version)
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        if entry_points is not None:
            (info / "entry_points.txt").write_text(entry_points)

    return install


def library():
    return sorted(
        (entry.name, entry.value, entry.dist.name, entry.dist.version)
        for entry in metadata.entry_points(group="lockkit")
    )


def test_it_agrees_with_the_library(site):
    site("plain", "[lockkit]\none = mod\ntwo=mod.sub:attr.deep\n")
    site(
        "others",
        "[console_scripts]\nx = y:z\n[lockkit]\n# a comment\n three = mod [extra]\n[gui_scripts]\nfour = m\n",
        "2.0",
    )
    site("nothing", None)
    site("unrelated", "[pytest11]\nlockkit = x\n[lockkit.other]\nfive = x\n")
    site("old", "[lockkit]\nsix = egg\n", "0.1", form="{name}-{version}-py3.11.egg-info")
    found = discovery.installed()
    assert sorted(found) == library()
    assert {entry.name for entry in found} == {"one", "two", "three", "six"}


def test_the_first_of_a_name_on_the_path_hides_the_others(site, tmp_path, monkeypatch):
    later = tmp_path / "later"
    site("My_Plugin", "[lockkit]\nnew = mod\n", "2.0")
    site("my.plugin", "[lockkit]\nold = mod\n", "1.0", folder=later)
    site("Hidden", None)
    site("hidden", "[lockkit]\nhidden = mod\n", folder=later)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(later), *STDLIB])
    assert [entry.name for entry in discovery.installed()] == ["new"]


def test_rubbish_is_passed_over(site, tmp_path, monkeypatch):
    (tmp_path / "x-1.dist-info").write_text("a file")
    (tmp_path / "-info").mkdir()
    (tmp_path / "y-1.dist-info").mkdir()
    (tmp_path / "y-1.dist-info/entry_points.txt").write_bytes(b"\xff[lockkit]\na = b\n")
    site("good", "[lockkit]\ngood = mod\nno equals sign\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "absent"), str(tmp_path), ""])
    monkeypatch.chdir(tmp_path)
    assert [entry.name for entry in discovery.installed()] == ["good"]


def test_a_zip_file_on_the_path_is_left_to_the_library(site, tmp_path, monkeypatch):
    archive = tmp_path / "plugins.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped-3.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipped\nVersion: 3.0\n")
        file.writestr("zipped-3.0.dist-info/entry_points.txt", "[lockkit]\nzipped = mod\n")
    monkeypatch.setattr(sys, "path", [str(archive), *STDLIB])
    assert discovery.installed() == (discovery.Installed("zipped", "mod", "zipped", "3.0"),)


def test_a_foreign_finder_is_left_to_the_library(site, monkeypatch):
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return None

        @staticmethod
        def find_distributions(context=None):
            return iter(())

    site("plain", "[lockkit]\none = mod\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    asked = []
    monkeypatch.setattr(discovery, "_from_library", lambda: asked.append(1) or iter(()))
    assert discovery.installed() == ()
    assert asked


def test_the_finder_of_the_backport_of_the_library_finds_what_is_found_without_it(site, monkeypatch):
    class MetadataPathFinder:
        """Named and installed like importlib_metadata's: its distributions are in the path's folders."""

        @staticmethod
        def find_distributions(context=None):
            raise AssertionError("the folders of the path are read without it")

    site("plain", "[lockkit]\none = mod\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, MetadataPathFinder()])
    assert [entry.name for entry in discovery.installed()] == ["one"]


@pytest.mark.parametrize(
    "value",
    [
        "lockkit.values.names",
        "lockkit.values.names:encode",
        "lockkit.store.spi:Claim.__name__",
        "lockkit.values.names [x]",
    ],
)
def test_load_imports_what_the_value_names(value):
    ours = discovery.Installed("x", value, "d", "1").load()
    assert ours is metadata.EntryPoint("x", value, "lockkit").load()


def test_of_each_of_many_distributions_one_small_file_is_opened(site, tmp_path, monkeypatch):
    """Their METADATA, which can be long, are never read: that is where the library's time goes."""
    for number in range(50):
        site(f"dist{number}", "[console_scripts]\nx = y:z\n" if number % 2 else None)
    opened = []
    spied = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(str(path)) or spied(path, *rest))
    assert discovery.installed() == ()
    ours = [path for path in opened if path.startswith(str(tmp_path))]
    assert sorted(ours) == sorted({f"{tmp_path}/dist{n}-1.0.dist-info/entry_points.txt" for n in range(50)})


@pytest.mark.parametrize("dist", ["lockkit", "My_Plugin", "a__b..C--d-_.e", "-a-", "...", ""])
def test_the_normalized_name_of_a_distribution_is_the_one_of_the_specification(dist):
    assert canonical(dist) == re.sub(r"[-_.]+", "-", dist).lower()


@pytest.mark.parametrize(
    "folder", ["x.dist-info", "x.y-1.0.dist-info", "x-1.0-py3.11.egg-info", "x-1.0.dist", "x-1", ".dist-info"]
)
def test_name_and_version_of_a_folder_of_metadata(folder):
    form = re.fullmatch(r"(?P<name>[^-]+)(-(?P<version>[^-]+)(-.*)?)?\.(dist|egg)-info", folder)
    assert discovery._split(folder) == ((form["name"], form["version"] or "") if form else ("", ""))
