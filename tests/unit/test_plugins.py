"""Loading, listing and calling plugins; none may cost more than itself."""

import functools
import importlib
import inspect
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import types
from typing import ClassVar

import pluggy
import pytest

from lockkit.errors import ConfigError, PluginError
from lockkit.facts import Capabilities, Event
from lockkit.gpu.devices import BasicProvider, Snapshot
from lockkit.hooks import HOOKS, hookimpl
from lockkit.plugins import PluginManager, calling, contract, manager, specs
from lockkit.plugins.discovery import Installed
from lockkit.plugins.stores import SCHEMES, scheme_of
from lockkit.store.spi import API, BackendSpec, OpenOptions

EVENT = Event("acquired", "a")


class Recorder:
    def __init__(self, name, calls, error=None):
        self.name, self.calls, self.error = name, calls, error

    @hookimpl
    def lockkit_event(self, event):
        self.calls.append(self.name)
        if self.error is not None:
            raise self.error
        return self.name


class Entry(Installed):
    """An entry point whose import is a function of the test."""

    __slots__ = ()
    loaders: ClassVar[dict] = {}

    def load(self):
        return self.loaders[self.name]()


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(manager, "_reported", set())
    monkeypatch.setattr(calling, "_told", set())
    monkeypatch.setattr(Entry, "loaders", {})


def installed(**loaders):
    Entry.loaders.update(loaders)
    return lambda: tuple(Entry(name, f"{name}_module", f"dist-{name}", "1.0") for name in loaders)


def build(*plugins, **loaders):
    return PluginManager(plugins, discover=installed(**loaders))


def module(source):
    made = types.ModuleType("made")
    exec("from lockkit.hooks import hookimpl\n" + source, made.__dict__)
    return made


def store(scheme="x", *, api=API, opened=None, extra=None):
    def open_it(url, options):
        if isinstance(opened, BaseException):
            raise opened
        return opened

    return BackendSpec("a-store", (scheme,), open_it, "a store", Capabilities("host"), extra, api)


def offering(*offered):
    class Offer:
        @hookimpl
        def lockkit_backends(self):
            return list(offered)

    return Offer()


def infos(plugins):
    return {info.name: info for info in plugins.describe()}


# -- loading -------------------------------------------------------------------------------------------------


def test_a_module_an_instance_and_an_installed_one_are_all_plugins():
    calls = []
    made = module("calls = []\n@hookimpl\ndef lockkit_event(event): calls.append(event)")
    plugins = build(made, Recorder("instance", calls), entry=lambda: Recorder("entry", calls))
    plugins.notify("lockkit_event", event=EVENT)
    assert made.calls == [EVENT]
    assert sorted(calls) == ["entry", "instance"]
    assert {
        name: info.source for name, info in infos(plugins).items() if info.source in ("code", "installed")
    } == {
        "made": "code",
        "Recorder": "code",
        "entry": "installed",
    }
    assert infos(plugins)["entry"].hooks == ("lockkit_event",)
    assert infos(plugins)["entry"].import_time >= 0
    assert (infos(plugins)["entry"].dist, infos(plugins)["entry"].version) == ("dist-entry", "1.0")


def broken_import():
    raise ImportError("no module named torch")


def exiting_import():
    sys.exit(3)


def unknown_hook():
    return module("@hookimpl\ndef lockkit_cleanups(context): pass\n@hookimpl\ndef lockkit_event(event): 1/0")


def unknown_argument():
    return module("@hookimpl\ndef lockkit_alert(alert): pass\n@hookimpl\ndef lockkit_event(evnt): 1/0")


def a_wrapper():
    return module("@hookimpl(wrapper=True)\ndef lockkit_event(event):\n  return (yield)")


def an_async_hook():
    return module("@hookimpl\nasync def lockkit_event(event): pass")


@pytest.mark.parametrize(
    "load, told",
    [
        (broken_import, "ImportError: no module named torch"),
        (exiting_import, "SystemExit: 3"),
        (unknown_hook, "lockkit_cleanups"),
        (unknown_argument, "evnt"),
        (a_wrapper, "hook wrapper"),
        (an_async_hook, "must be a plain function, not async"),
        (lambda: Recorder, "must be a module or an instance"),
        (lambda: None, "must be a module or an instance"),
        (lambda: module(""), "no hooks"),
    ],
)
def test_a_broken_plugin_costs_only_itself(load, told, caplog):
    calls = []
    plugins = build(
        before=lambda: Recorder("before", calls), broken=load, behind=lambda: Recorder("behind", calls)
    )
    assert [outcome.error for outcome in plugins.notify("lockkit_event", event=EVENT)] == [None, None]
    assert [
        name for name, _ in plugins.implementations("lockkit_alert")
    ] == []  # half-registered hooks are rolled back
    assert sorted(calls) == ["before", "behind"]
    info = infos(plugins)["broken"]
    assert told in info.error
    assert info.hooks == ()
    assert sum(told in record.getMessage() for record in caplog.records) == 1


def test_half_registered_hooks_are_rolled_back_under_an_older_pluggy(monkeypatch):
    # Before 1.7 pluggy registered hook by hook and left those it came to before the one that failed.
    plugins = build()
    bad = unknown_argument()

    def register(self, plugin, name=None):
        self._name2plugin[name] = plugin
        good = types.ModuleType("good")
        good.lockkit_alert = plugin.lockkit_alert
        impl = contract.pluggy.HookImpl(
            plugin, name, plugin.lockkit_alert, self.parse_hookimpl_opts(good, "lockkit_alert")
        )
        self.hook.lockkit_alert._add_hookimpl(impl)
        raise contract.pluggy.PluginValidationError(plugin, "evnt is not an argument")

    monkeypatch.setattr(contract.pluggy.PluginManager, "register", register)
    with pytest.raises(PluginError, match="evnt"):
        plugins.register(bad, "bad")
    assert plugins.implementations("lockkit_alert") == ()


def test_a_broken_plugin_is_reported_once_for_all_clients(caplog):
    build(broken=broken_import)
    build(broken=broken_import)
    assert len(caplog.records) == 1


def test_ctrl_c_during_an_import_is_the_users():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(broken=interrupted)


def test_what_a_signal_throws_into_an_import_is_the_users():
    class Stop(BaseException):
        pass

    def stop(*_):
        raise Stop

    def slow():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(5)

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Stop):
            build(slow=slow)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_code_hands_over_must_work():
    with pytest.raises(PluginError, match="lockkit_cleanups"):
        build(unknown_hook())
    with pytest.raises(PluginError, match="must be a module or an instance"):
        build(Recorder)


def test_raise_is_for_developing():
    with pytest.raises(PluginError, match="torch"):
        PluginManager(raise_errors=True, discover=installed(broken=broken_import))
    plugins = PluginManager([Recorder("a", [], ZeroDivisionError())], raise_errors=True, discover=installed())
    with pytest.raises(ZeroDivisionError):
        plugins.notify("lockkit_event", event=EVENT)


@pytest.mark.parametrize("disabled", ["first", "dist_first", "all"])
def test_disabled_plugins_are_not_even_imported(disabled):
    calls = []

    def first():
        raise AssertionError("imported")

    discover = installed(first=first, second=lambda: Recorder("second", calls))
    plugins = PluginManager([Recorder("code", calls)], disabled=[disabled], discover=discover)
    plugins.notify("lockkit_event", event=EVENT)
    assert calls == (["code"] if disabled == "all" else ["code", "second"])
    assert infos(plugins)["first"].disabled
    assert infos(plugins)["first"].error is None
    assert plugins.backend("memory:").name == "memory"


def test_two_plugins_of_one_name_both_count():
    calls = []
    plugins = build(Recorder("a", calls), Recorder("b", calls))
    assert [outcome.value for outcome in plugins.notify("lockkit_event", event=EVENT)] == ["b", "a"]
    assert len([info for info in plugins.describe() if info.source == "code"]) == 2


def test_one_plugin_twice_is_refused():
    once = Recorder("a", [])
    with pytest.raises(PluginError, match="already registered"):
        build(once, once)


# -- calling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError(), SystemExit(2), GeneratorExit(), BaseException("x")])
def test_what_one_raises_stops_no_other(error, caplog):
    calls = []
    plugins = build(Recorder("a", calls), Recorder("b", calls, error), Recorder("c", calls))
    outcomes = plugins.notify("lockkit_event", event=EVENT)
    assert calls == ["c", "b", "a"]  # last registered first
    assert [(outcome.value, outcome.error) for outcome in outcomes] == [
        ("c", None),
        (None, error),
        ("a", None),
    ]
    assert [outcome.plugin for outcome in outcomes] == ["code.Recorder-2", "code.Recorder", "Recorder"]
    assert "lockkit_event raised" in caplog.text


def test_a_broken_event_hook_does_not_flood_the_log(caplog):
    plugins = build(Recorder("a", [], ZeroDivisionError()))
    with caplog.at_level(logging.INFO, "lockkit.plugins"):
        for _ in range(100):
            plugins.notify("lockkit_event", event=EVENT)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("how", ["function", "method", "partial", "callable", "ctrl-c"])
def test_what_a_signal_throws_is_the_users_and_comes_after_the_others_were_called(how):
    class Stop(BaseException):
        pass

    class Handler:
        def __call__(self, *_):
            raise Stop

        method = __call__

    def function(*_):
        raise Stop

    handler, expected = {
        "function": (function, Stop),
        "method": (Handler().method, Stop),
        "partial": (functools.partial(function, 1), Stop),
        "callable": (Handler(), Stop),
        "ctrl-c": (signal.default_int_handler, KeyboardInterrupt),
    }[how]
    number = signal.SIGINT if how == "ctrl-c" else signal.SIGUSR1

    class Killed:
        @hookimpl
        def lockkit_event(self):
            os.kill(os.getpid(), number)
            time.sleep(5)

    calls = []
    plugins = build(Recorder("a", calls), Killed())
    before = signal.signal(number, handler)
    try:
        with pytest.raises(expected):
            plugins.notify("lockkit_event", event=EVENT)
    finally:
        signal.signal(number, before)
    assert calls == ["a"]


def test_in_another_thread_nothing_is_thrown_by_a_signal():
    got = []
    plugins = build(Recorder("a", [], KeyboardInterrupt()))
    thread = threading.Thread(target=lambda: got.extend(plugins.notify("lockkit_event", event=EVENT)))
    thread.start()
    thread.join()
    assert isinstance(got[0].error, KeyboardInterrupt)


def test_hooks_may_leave_out_arguments_and_choose_their_place():
    calls = []

    class Early:
        @hookimpl(tryfirst=True)
        def lockkit_event(self):
            calls.append("early")

    plugins = build(Early(), Recorder("a", calls))
    plugins.notify("lockkit_event", event=EVENT)
    assert calls == ["early", "a"]


def test_implementations_are_cached_until_somebody_registers():
    plugins = build()
    assert plugins.implementations("lockkit_cleanup") is plugins.implementations("lockkit_cleanup")
    assert plugins.implementations("lockkit_cleanup") == ()
    seen = []

    class Cleaner:
        @hookimpl
        def lockkit_cleanup(self, context):
            seen.append(context)

    plugins.register(Cleaner(), "x")
    ((name, call),) = plugins.implementations("lockkit_cleanup")
    call(context=3)
    assert (name, seen) == ("x", [3])


def test_without_hooks_a_call_costs_next_to_nothing():
    plugins = build()
    start = time.thread_time()  # of the processor, because the machine may be busy
    for _ in range(1000):
        plugins.notify("lockkit_event", event=EVENT)
    assert time.thread_time() - start < 0.01


def test_a_hook_that_does_not_exist_is_a_mistake_of_ours():
    with pytest.raises(AttributeError):
        build().notify("lockkit_evnt", event=EVENT)


def test_every_hook_is_specified_with_a_docstring():
    assert {name for name in specs.__all__ if name.startswith("lockkit_")} == set(HOOKS)
    for name in specs.__all__:
        assert len(getattr(specs, name).__doc__) > 40


@pytest.mark.parametrize("options", [{}, {"tryfirst": True}, {"trylast": True, "specname": "lockkit_alert"}])
def test_our_marker_sets_the_mark_that_pluggy_would_set(options):
    def ours(event): ...
    def theirs(event): ...

    assert hookimpl(**options)(ours) is ours
    pluggy.HookimplMarker("lockkit")(**options)(theirs)
    assert vars(ours) == vars(theirs)


def test_a_plugin_may_be_marked_by_pluggys_own_marker():
    class Plugin:
        @pluggy.HookimplMarker("lockkit")
        def lockkit_event(self, event): ...

    assert build(Plugin()).implementations("lockkit_event")


@pytest.mark.parametrize("name", sorted({store.module for store in SCHEMES.values()}))
def test_a_store_of_ours_has_one_hook_which_needs_no_check(name):
    # lockkit.plugins.registry relies on it.
    store = importlib.import_module(name)
    marked = {hook: vars(store)[hook] for hook in HOOKS if hook in vars(store)}
    assert list(marked) == ["lockkit_backends"]
    assert not inspect.signature(marked["lockkit_backends"]).parameters
    assert not any(marked["lockkit_backends"].lockkit_impl.values())


def test_a_disabled_store_of_ours_offers_nothing():
    plugins = PluginManager(disabled=["memory"], discover=tuple)
    plugins.backend("sqlite:")
    assert [name for name, _ in plugins.implementations("lockkit_backends")] == ["sqlite"]


# -- devices -------------------------------------------------------------------------------------------------


class Cards(BasicProvider):
    """A provider without cards."""

    def __init__(self, name):
        self.name = name

    def snapshot(self):
        return Snapshot(0.0)


class Devices:
    def __init__(self, offer):
        self.offer = offer

    @hookimpl
    def lockkit_devices(self):
        return self.offer()


def test_device_providers_of_all_plugins_are_collected_and_lockkits_come_last():
    first, second = Cards("first"), Cards("second")
    plugins = build(Devices(lambda: [first]), Devices(lambda: (second,)))
    assert plugins.devices()[:2] == (second, first)
    assert plugins.devices() == plugins.devices()
    assert {
        info.name: (info.dist, info.hooks) for info in plugins.describe() if info.source == "shipped"
    } == {
        "gpu": ("lockkit", ("lockkit_commands", "lockkit_devices")),
        "gpu-cleanup": ("lockkit", ("lockkit_cleanup",)),
    }


@pytest.mark.parametrize(
    "offer, told",
    [
        (lambda: 1 / 0, "lockkit_devices raised ZeroDivisionError"),
        (sys.exit, "lockkit_devices raised SystemExit"),
        (lambda: Cards("one"), "must return a list"),
        (lambda: [object()], "not a DeviceProvider, with name"),
        (lambda: [Cards], "not a DeviceProvider, with name"),
        (lambda: [Cards("")], "not a DeviceProvider, with name"),
        (lambda: [Cards("twin"), Cards("twin")], "already offers a device provider called 'twin'"),
    ],
)
def test_a_wrong_offer_of_devices_is_reported_and_hides_no_other(offer, told):
    good = Cards("good")
    plugins = build(Devices(lambda: [good]), Devices(offer))
    assert good in plugins.devices()
    assert [info.error for info in plugins.skipped()] == [next(iter(plugins.skipped())).error]
    assert told in plugins.skipped()[0].error


def test_a_plugin_that_comes_later_brings_its_devices_too():
    plugins = build()
    before = plugins.devices()
    late = Cards("late")
    plugins.register(Devices(lambda: [late]))
    assert plugins.devices() == (late, *before)


def test_lockkits_own_plugin_for_gpus_is_imported_only_for_devices():
    code = (
        "import sys; from lockkit.plugins import PluginManager; "
        "made = PluginManager(); made.backend('memory:'); "
        "print('lockkit.gpu' in sys.modules, 'lockkit.gpu.devices' in sys.modules); "
        "made.devices(); print('lockkit.gpu' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False", "True"]


def test_lockkits_own_plugin_for_gpus_can_be_disabled():
    plugins = PluginManager(disabled=["gpu"], discover=tuple)
    assert plugins.devices() == ()
    assert infos(plugins)["gpu"].disabled


# -- stores --------------------------------------------------------------------------------------------------


def test_a_scheme_finds_its_store_without_importing_the_others():
    code = (
        "import sys; from lockkit.plugins import PluginManager; "
        "spec = PluginManager(discover=tuple).backend('memory:'); "
        "print(spec.name, 'lockkit_sqlite' in sys.modules, 'importlib.metadata' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["memory", "False", "False"]


def test_third_parties_offer_schemes_too():
    plugins = build(offering(store("zz")))
    assert plugins.backend("ZZ://host").name == "a-store"
    assert set(plugins.backends()) >= {"memory", "zz"}


def test_nobody_takes_over_a_scheme_of_ours(caplog):
    plugins = build(offering(store("memory")))
    assert plugins.backends()["memory"].name == "memory"
    assert plugins.backend("memory:").name == "memory"
    assert "already offers the URL scheme memory:" in infos(plugins)["Offer"].error


def test_of_two_that_clash_the_first_wins_and_the_second_is_reported(caplog):
    plugins = build(offering(store("zz")), offering(store("zz"), store("yy")))
    assert set(plugins.backends()) >= {"zz", "yy"}
    assert infos(plugins)["Offer"].error is None
    assert "already offers the URL scheme zz:" in infos(plugins)["code.Offer"].error


@pytest.mark.parametrize("offer", [[store(api=API + 1)], ["x"], None, "x"])
def test_a_spec_that_is_none_or_of_another_api_is_reported_and_skipped(offer):
    class Offer:
        @hookimpl
        def lockkit_backends(self):
            return offer

    plugins = build(Offer())
    with pytest.raises(ConfigError, match="no plugin offers x: URLs"):
        plugins.backend("x:")
    assert infos(plugins)["Offer"].error


def test_one_that_raises_is_reported_and_skipped():
    class Offer:
        @hookimpl
        def lockkit_backends(self):
            raise ZeroDivisionError

    plugins = build(Offer())
    assert "memory" in plugins.backends()
    assert "ZeroDivisionError" in infos(plugins)["Offer"].error


class _Without:
    """A finder that finds all but one module."""

    def __init__(self, module, finder):
        self.module, self.finder = module, finder

    def find_spec(self, name, path=None, target=None):
        return None if name == self.module else self.finder.find_spec(name, path, target)


@pytest.mark.parametrize("scheme", [scheme for scheme, own in SCHEMES.items() if own.extra])
def test_a_missing_plugin_says_what_to_install(monkeypatch, scheme):
    monkeypatch.setattr(
        sys, "meta_path", [_Without(SCHEMES[scheme].module, finder) for finder in sys.meta_path]
    )
    monkeypatch.delitem(sys.modules, SCHEMES[scheme].module, raising=False)
    with pytest.raises(ConfigError) as raised:
        build().backend(f"{scheme}://host")
    assert raised.value.hint.endswith(f'pip install --upgrade "lockkit[{SCHEMES[scheme].extra}]"')
    assert SCHEMES[scheme].module in str(raised.value)


def test_a_finder_of_the_old_kind_is_passed_over(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [object(), *sys.meta_path])
    assert manager._is_there(SCHEMES["sqlite"].module)
    monkeypatch.delitem(sys.modules, SCHEMES["sqlite"].module)
    assert manager._is_there(SCHEMES["sqlite"].module)


def test_a_missing_client_library_says_what_to_install():
    missing = ImportError("No module named 'zzlib'", name="zzlib")
    discover = installed(mine=lambda: offering(store("zz", opened=missing, extra="zz")))
    with pytest.raises(ConfigError, match=r'zz: URLs need zzlib.*\(pip install "dist-mine\[zz\]"\)'):
        PluginManager(discover=discover).open("zz://h", OpenOptions())


def test_an_import_that_no_extra_would_mend_is_the_plugins_fault():
    plugins = build(offering(store("zz", opened=ImportError("no module named x"))))
    with pytest.raises(PluginError, match="no module named x"):
        plugins.open("zz://h", OpenOptions())


def test_an_unknown_scheme_says_which_there_are():
    with pytest.raises(ConfigError, match=r"no plugin offers memry: URLs \(did you mean memory:\?.*memory"):
        build().backend("memry:")


def test_a_disabled_store_says_so():
    with pytest.raises(ConfigError, match="memory, is disabled"):
        PluginManager(disabled=["memory"], discover=tuple).backend("memory:")


def test_a_store_of_ours_that_does_not_load_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "lockkit_memory", types.ModuleType("lockkit_memory"))
    with pytest.raises(PluginError, match=r"memory.*no hooks"):
        PluginManager(discover=tuple).backend("memory:")


@pytest.mark.parametrize("url", ["", "redis", "/var/lib/x.db", "1x:y", "://"])
def test_what_is_no_url(url):
    with pytest.raises(ConfigError, match="not a store's URL"):
        scheme_of(url)


def test_an_error_hides_passwords():
    with pytest.raises(ConfigError) as raised:
        scheme_of("//ann:secret@host")
    assert "secret" not in str(raised.value)
