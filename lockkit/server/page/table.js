// Tables that stay tables when a narrow screen shows their rows as cards: the roles are told, because CSS takes them away.

import { el, list } from "./dom.js";

/**
 * A table.
 *
 * @param label What it shows, for those who do not see it.
 * @param columns The headings, in order. A heading is a text, or [text, class].
 * @param key Gives a text that tells the rows apart.
 * @param make Makes a row for a new thing: its `cells`, in order, and `show(thing)`.
 * @returns Its `node`, and `show(things)`.
 */
export function table(label, columns, key, make) {
    const heads = columns.map((column) => (Array.isArray(column) ? column : [column, ""]));
    const body = el("tbody", { role: "rowgroup", onkeydown: upAndDown });
    const node = el(
        "table",
        { role: "table" },
        el("caption", { class: "unseen" }, label),
        el(
            "thead",
            { role: "rowgroup" },
            el(
                "tr",
                { role: "row" },
                heads.map(([text, kind]) =>
                    el("th", { scope: "col", role: "columnheader", class: kind }, text),
                ),
            ),
        ),
        body,
    );
    const show = list(body, key, (thing) => {
        const { cells, show } = make(thing);
        const row = el(
            "tr",
            { role: "row" },
            cells.map((cell, number) => {
                const [text, kind] = heads[number];
                const first = number === 0;
                return el(
                    first ? "th" : "td",
                    {
                        role: first ? "rowheader" : "cell",
                        scope: first && "row",
                        class: kind,
                        "data-head": text,
                    },
                    el("div", { class: "cell" }, cell),
                );
            }),
        );
        return { node: row, show: (one) => show(one, row) };
    });
    return { node, show };
}

/** With the arrow keys from a link or button to the one at the same place in the next row. Tab goes everywhere, too. */
function upAndDown(event) {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const row = event.target.closest("tr");
    if (!step || !row?.[step]) return;
    const within = (one) =>
        [...one.querySelectorAll("a[href], button")].filter((each) => each.offsetParent !== null);
    const others = within(row[step]);
    const place = within(row).indexOf(event.target);
    if (others.length === 0 || place < 0) return;
    event.preventDefault();
    others[Math.min(place, others.length - 1)].focus();
}
