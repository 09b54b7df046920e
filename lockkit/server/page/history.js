// Who held which lock: the past of all locks, from the event journals of the server’s host, with a search.

import { get } from "./api.js";
import { shownName } from "./claims.js";
import { now } from "./clock.js";
import { attribute, el, say, shown } from "./dom.js";
import { searchPart } from "./filter.js";
import { here, to } from "./route.js";
import { table } from "./table.js";
import { past, pastRow, spanPart } from "./timeline.js";

const LIMIT = 200;

function row() {
    const name = el("a", { class: "name" });
    const { cells, show } = pastRow();
    return {
        cells: [name, ...cells],
        show(hold) {
            say(name, shownName(hold.name));
            attribute(name, "href", to("lock", { name: hold.name }));
            show(hold);
        },
    };
}

/** The view of the past. */
export function historyView({ store }) {
    const search = searchPart("search", "Search", "words of names, people, reasons");
    const { span, select } = spanPart();
    const rows = table(
        "Holds of all locks, the newest first",
        ["Lock", ["Holder", "wide"], "From", "For", "Waited", ["End", "wide"]],
        ({ claim, fence, name }) => `${claim} ${fence} ${name}`,
        row,
    );
    shown(rows.node, false); // until something was read
    const words = el("p", { class: "empty", hidden: true });
    return {
        title: "History",
        node: el(
            "div",
            {},
            el("h1", { tabindex: -1 }, "History"),
            el(
                "section",
                { "aria-label": "History" },
                el(
                    "form",
                    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
                    search.node,
                    el("label", { for: "span" }, "Show", select),
                ),
                rows.node,
                words,
            ),
        ),
        async read() {
            const since = Math.floor(now() - span());
            const { holds, reason } = await get("api/history", {
                store,
                since,
                search: here().query.get("search"),
                limit: LIMIT,
            });
            // Of a hold that goes on, the age is as it was at this look.
            rows.show(
                holds
                    .map(past)
                    .map((hold) => (hold.end === "held" ? { ...hold, until: now() } : hold))
                    .toReversed(),
            );
            shown(rows.node, holds.length > 0);
            shown(words, holds.length === 0 || holds.length === LIMIT);
            say(
                words,
                reason
                    ? `${reason}.`
                    : holds.length === 0
                      ? "The journals have no such hold."
                      : `These are the newest ${LIMIT}. More words, or a shorter time, lead to earlier ones.`,
            );
        },
        moved() {
            search.moved();
            select.value = String(span());
        },
    };
}
