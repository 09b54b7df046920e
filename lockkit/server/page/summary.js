// The strip above the locks: who waits longest, what most wait for, how many there are, and whether all is well.

import { get, Problem } from "./api.js";
import { age } from "./clock.js";
import { owner, shownName } from "./claims.js";
import { attribute, el, say, shown } from "./dom.js";
import { to } from "./route.js";

const number = (value) => value.toLocaleString("en");

function card(title) {
    const figure = el("p", { class: "figure" }, "…");
    const name = el("a", { class: "name" });
    const words = el("p", { class: "soft" });
    const others = el("ul", { class: "plain" });
    const more = el("details", { hidden: true }, el("summary", {}, ""), others);
    const node = el("li", { class: "card" }, el("h2", {}, title), figure, name, words, more);
    return {
        node,
        /** What can be opened: a line each. */
        more(lines) {
            shown(more, lines.length > 0);
            say(more.firstChild, `${number(lines.length)} more ${lines.length === 1 ? "reason" : "reasons"}`);
            if (others.textContent === lines.join("")) return; // what a visitor reads or marks stays
            others.replaceChildren(...lines.map((text) => el("li", {}, text)));
        },
        show(told, text, lock = null) {
            say(figure, told);
            shown(name, lock !== null);
            if (lock !== null) {
                say(name, shownName(lock));
                attribute(name, "href", to("lock", { name: lock }));
            }
            say(words, text);
            shown(words, text !== "");
        },
        kind(word) {
            attribute(node, "data-kind", word);
        },
    };
}

/** The holder of a lock, in words that end a sentence. */
function heldBy(lock) {
    const [holder] = lock.holders;
    if (!holder) return "nobody holds it at this moment";
    const more = lock.holders.length > 1 ? ` and ${lock.holders.length - 1} more` : "";
    if (holder.state === "HELD")
        return `held by ${owner(holder.owner)}${more} for ${age(holder.since_seconds)}`;
    return `still blocked after ${owner(holder.owner)}`;
}

function showLongest(card, lock) {
    const waiter = lock?.waiters[0];
    card.kind(waiter ? "waits" : "calm");
    if (!waiter) card.show("Nobody waits", "");
    else card.show(age(waiter.since_seconds), `${owner(waiter.owner)} waits; ${heldBy(lock)}`, lock.name);
}

function showContended(card, lock) {
    const contended = lock !== undefined && lock.waiting > 1;
    card.kind(contended ? "waits" : "calm");
    if (contended) card.show(`${number(lock.waiting)} wait`, heldBy(lock), lock.name);
    else card.show("Nothing", lock?.waiting === 1 ? "no lock has more than one waiter" : "");
}

function showCounts(card, summary) {
    const words = [
        [summary.held, "held"],
        [summary.waiting, "about to be taken"],
        [summary.lingering, "ended, still blocked"],
        [summary.waiters, "waiting in all"],
    ];
    const told = words.filter(([count]) => count > 0).map(([count, word]) => `${number(count)} ${word}`);
    card.show(number(summary.locks), told.join(" · "));
}

function showHealth(card, { status, reasons }) {
    const [worst, ...rest] = reasons;
    card.show(status, worst?.message ?? "", worst?.name ?? null);
    card.more(rest.map(({ message }) => message));
    card.kind(status);
}

/** The strip: its `node`, `read(store)` and `tick()`. */
export function summaryStrip() {
    const longest = card("Longest wait");
    const contended = card("Most contended");
    const counts = card("Locks");
    const health = card("Health");
    const cards = [longest, contended, counts, health].map(({ node }) => node);
    const node = el("ul", { class: "strip", "aria-label": "Summary" }, cards);
    let seen = null;
    let asking = false;

    function show() {
        if (seen === null) return;
        showLongest(longest, seen.byAge.locks[0]);
        showContended(contended, seen.byWaiters.locks[0]);
        showCounts(counts, seen.byAge.summary);
    }

    /** Ask for the health, for which nothing else waits: it takes as long as the slowest store of the server. */
    async function look(store) {
        if (asking) return;
        asking = true;
        try {
            const { stores } = await get("health");
            const mine = stores.find((one) => one.id === store);
            if (mine) showHealth(health, mine);
        } catch (error) {
            if (!(error instanceof Problem)) throw error;
            health.show("unknown", error.message);
            health.more([]);
            health.kind("");
        } finally {
            asking = false;
        }
    }

    return {
        node,
        async read(store) {
            look(store);
            const [byAge, byWaiters] = await Promise.all(
                ["age", "waiters"].map((sort) => get("api/locks", { store, sort, limit: 1, waiters: 1 })),
            );
            seen = { byAge, byWaiters };
            show();
        },
        tick: show,
    };
}
