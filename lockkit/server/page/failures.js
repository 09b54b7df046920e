// Releases that got no definite answer, as the journal of the server's user has them.

import { get } from "./api.js";
import { clockTime } from "./clock.js";
import { attribute, el, list, say, shown } from "./dom.js";
import { change, here, to } from "./route.js";

const FIRST = ["id", "at", "name", "resolved", "resolved_by", "url", "namespace"]; // told in the heading, or plain from the page

/** A value of a record in one line. */
function words(value) {
    return typeof value === "string" || typeof value === "number" ? String(value) : JSON.stringify(value);
}

function failurePart(record) {
    const at = new Date(record.at);
    const rest = Object.entries(record).filter(
        ([name, value]) => !FIRST.includes(name) && value !== null && value !== "",
    );
    const name =
        typeof record.name === "string"
            ? el("a", { class: "name", href: to("lock", { name: record.name }) }, record.name)
            : null;
    const state = el("span", { class: "badge" });
    const how = el("code", { class: "command" }, `lockkit failures resolve ${record.id}`);
    const node = el(
        "article",
        { class: "card failure" },
        el("div", { class: "heading" }, el("h2", {}, name ?? record.id), state),
        el("p", { class: "soft" }, Number.isNaN(at.getTime()) ? record.at : clockTime(at.getTime() / 1000)),
        el(
            "details",
            {},
            el("summary", {}, "What was recorded"),
            el(
                "dl",
                { class: "record" },
                rest.map(([key, value]) =>
                    el("div", {}, el("dt", {}, key), el("dd", { class: "code" }, words(value))),
                ),
            ),
        ),
        how,
    );
    return {
        node,
        show(one) {
            say(state, one.resolved ? `resolved by ${one.resolved_by}` : "not resolved");
            shown(how, !one.resolved);
            attribute(node, "data-kind", one.resolved ? "" : "warning");
        },
    };
}

/** The view of failed releases. */
export function failuresView({ store }) {
    const all = el("input", {
        type: "checkbox",
        id: "all",
        onchange: () => change({ all: all.checked ? "1" : null }),
    });
    all.checked = here().query.has("all");
    const cards = el("div", { class: "alerts" });
    const empty = el("p", { class: "empty", hidden: true }, "No release failed.");
    const show = list(cards, (record) => record.id, failurePart);
    return {
        title: "Failures",
        node: el(
            "div",
            {},
            el("h1", { tabindex: -1 }, "Failures"),
            el(
                "p",
                { class: "soft" },
                "Releases that got no definite answer. The lock lapses by itself; somebody should find out why.",
            ),
            el(
                "section",
                { "aria-label": "Failures" },
                el("p", {}, el("label", { for: "all" }, all, "Show those that are resolved, too")),
                cards,
                empty,
            ),
        ),
        async read() {
            const { failures } = await get("api/failures", { store, all: all.checked ? "true" : null });
            show(failures.toReversed());
            shown(empty, failures.length === 0);
        },
        moved() {
            all.checked = here().query.has("all");
        },
    };
}
