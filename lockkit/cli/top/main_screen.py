"""The first screen: who blocks whom now; the GPUs of this host; the releases that failed."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import ContentSwitcher, DataTable, Footer, Input, Static, Tab, Tabs

from lockkit.cli import drains, failure_table
from lockkit.cli.looking import contended_words, summary_words
from lockkit.cli.top.cells import Entry, lock_columns, lock_entries, matching
from lockkit.cli.top.live_table import LiveTable
from lockkit.cli.top.one_lock import OneLock
from lockkit.cli.top.polling import View
from lockkit.cli.top.screens import DrawnGpus, Live
from lockkit.lib.printable import printable
from lockkit.views.looking import Look, Sort, arranged

__all__ = ["MainScreen"]

_MOST = 2000
"""Locks that are shown; a filter finds the others."""
_TABS = {"locks": "Locks", "gpus": "GPUs", "failures": "Failures"}


class MainScreen(Live):
    """The first screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("A", "sort('age')", "By age", show=False),
        Binding("W", "sort('waiters')", "By waiters", show=False),
        Binding("N", "sort('name')", "By name", show=False),
        Binding("1", "tab('locks')", "Locks", show=False),
        Binding("2", "tab('gpus')", "GPUs", show=False),
        Binding("3", "tab('failures')", "Failures", show=False),
        Binding("r", "app.refresh_now", "Read now", show=False),
        Binding("escape", "unfilter", "No filter", show=False),
        Binding("q", "app.quit", "Quit"),
    ]

    def __init__(self, sort: Sort) -> None:
        super().__init__()
        self._sort: Sort = sort
        self._tab = "locks"
        self._words = ""
        self._look: Look | None = None
        self._at = 0.0
        self._views: dict[str, View] = {}

    @property
    def view(self) -> View:
        """The view of the tab in front."""
        if not self._views:
            top = self.top
            self._views = {
                "locks": View(top.read_locks, self._show_locks),
                "gpus": View(top.read_gpus, self._show_gpus),
                "failures": View(top.read_failures, self._show_failures),
            }
        return self._views[self._tab]

    @property
    def table(self) -> LiveTable | None:
        """The table of locks, if its tab is in front."""
        return self.query_one("#locks", LiveTable) if self._tab == "locks" else None

    def compose(self) -> ComposeResult:
        """Three tabs, and below them the entry under the cursor in full."""
        yield from self.head()
        yield Static("", id="summary", markup=False)
        yield Tabs(
            *(Tab(f"{label} ({n})", id=f"tab-{key}") for n, (key, label) in enumerate(_TABS.items(), 1))
        )
        with ContentSwitcher(initial="locks"):
            yield LiveTable("locks")
            with VerticalScroll(id="gpus"):
                yield Static("reading ...", id="gpu-table", markup=False)
            with VerticalScroll(id="failures"):
                yield Static("reading ...", id="failure-table", markup=False)
        yield Static("", id="about", markup=False)
        yield Input(placeholder="a part of a name or owner, or a pattern such as team-01/*", id="filter")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin at the table."""
        self.ready = True
        self.query_one("#filter").display = False
        self.query_one("#locks").focus()
        if self.top.first is not None:
            self._show_locks(self.top.first, self.now())

    def on_resize(self) -> None:
        """Fit the columns to the terminal."""
        self._draw()

    # -- what was read

    def _show_locks(self, found: Look, at: float) -> None:
        self._look, self._at = found, at
        self._draw()

    def _draw(self) -> None:
        """Draw the locks that were read last, in the order and with the filter of now."""
        found = self._look
        if found is None or not self.ready:
            return
        shown = arranged(found._replace(locks=matching(found.locks, self._words)), self._sort).locks
        columns = lock_columns(self.app.size.width)
        entries = lock_entries(shown[:_MOST], columns, self._at)
        self.query_one("#locks", LiveTable).put(columns, entries)
        told = [] if found.drained is None else [drains.told(found.drained)]
        told += [
            f"{name!r} cannot be read: {error.message}" for name, error in list(found.unread.items())[:3]
        ]
        counted = "; ".join(filter(None, (summary_words(found, self._at), contended_words(found))))
        order = f"by {self._sort}" + (f", filter {self._words!r}: {len(shown):,}" if self._words else "")
        more = f", the first {_MOST:,} shown" if len(shown) > _MOST else ""
        told.append(f"{counted} [{order}{more}]")
        self.query_one("#summary", Static).update(printable("\n".join(told), lines=True))
        self._tell_entry()

    def _show_gpus(self, found: DrawnGpus | str, at: float) -> None:  # noqa: ARG002 (a view's)
        shown = printable(found) if isinstance(found, str) else found(self.app.size.width - 2)
        self.query_one("#gpu-table", Static).update(shown)

    def _show_failures(self, found: list[dict[str, object]], at: float) -> None:  # noqa: ARG002 (a view's)
        shown = (
            failure_table.table_of(found)
            if found
            else Text("no unresolved failures in the journal of this user on this host")
        )
        self.query_one("#failure-table", Static).update(shown)

    def _tell_entry(self) -> None:
        """Tell the entry under the cursor in full, because a narrow table cuts it."""
        entry = self.table.entry if self.table is not None else None
        self.query_one("#about", Static).update(printable(_about(entry), lines=True))

    # -- keys

    def on_data_table_row_highlighted(self) -> None:
        """Tell of the entry that the cursor has come to."""
        self._tell_entry()

    def on_data_table_row_selected(self) -> None:
        """Open the lock under the cursor, by Enter or by a click."""
        self.action_open()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column that was clicked, as far as there is such an order."""
        sort: Sort | None = {"name": "name", "waiters": "waiters", "longest": "age", "since": "age"}.get(
            str(event.column_key.value)
        )  # type: ignore[assignment]  # literals
        if sort is not None:
            self.action_sort(sort)

    def action_open(self) -> None:
        """Open the lock under the cursor."""
        entry = self.table.entry if self.table is not None else None
        if entry is not None:
            self.app.push_screen(OneLock(entry.info.name))

    def action_sort(self, sort: Sort | None = None) -> None:
        """Sort by an order, or by the next one."""
        orders: tuple[Sort, ...] = ("age", "waiters", "name")
        self._sort = sort or orders[(orders.index(self._sort) + 1) % len(orders)]
        self._draw()

    def action_tab(self, tab: str) -> None:
        """Bring a tab to the front."""
        self.query_one(Tabs).active = f"tab-{tab}"

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        """Read what the tab in front shows, and nothing else."""
        self._tab = str(event.tab.id).removeprefix("tab-")
        self.query_one(ContentSwitcher).current = self._tab
        self.query_one(f"#{self._tab}").focus()
        self._tell_entry()
        if self.is_current:
            self.top.watch_view()

    def action_filter(self) -> None:
        """Type a filter."""
        self.action_tab("locks")
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as it is typed."""
        self._words = event.value
        self._draw()

    def on_input_submitted(self) -> None:
        """Keep the filter, and go back to the table."""
        self.query_one("#filter").display = False
        self.query_one("#locks").focus()

    def action_unfilter(self) -> None:
        """Show every lock again."""
        self.query_one("#filter", Input).value = ""
        self.on_input_submitted()


def _about(entry: Entry | None) -> str:
    """The lock and the holder of an entry, in two rows."""
    if entry is None:
        return ""
    if entry.claim is None:
        return f"{entry.info.name}\nnobody holds it at this moment"
    return f"{entry.info.name}  claim {entry.claim.claim_id}  fence {entry.claim.fence}\n{entry.who}"
