// The way through a long list of which the server gives one page.

import { el, say, shown } from "./dom.js";

/** Two buttons and where we are. `move(offset)` is called with the place of the first row of another page. */
export function pagerPart(label, move) {
    const where = el("span", {});
    let place = { offset: 0, limit: 1 };
    const go = (offset) => {
        move(offset);
        node.parentElement.scrollIntoView(); // the list begins above
    };
    const back = el(
        "button",
        { type: "button", onclick: () => go(Math.max(place.offset - place.limit, 0)) },
        "Previous",
    );
    const on = el("button", { type: "button", onclick: () => go(place.offset + place.limit) }, "Next");
    const node = el("nav", { class: "pager", "aria-label": label, hidden: true }, back, where, on);
    return {
        node,
        /** Show that `count` rows from `offset` on are there, of `total`; a page has `limit`. */
        show({ offset, limit, count, total }) {
            place = { offset, limit };
            shown(node, total > limit || offset > 0);
            const number = (value) => value.toLocaleString("en");
            say(
                where,
                count
                    ? `${number(offset + 1)} to ${number(offset + count)} of ${number(total)}`
                    : `none of ${number(total)}`,
            );
            back.disabled = offset === 0;
            on.disabled = offset + count >= total;
        },
    };
}
