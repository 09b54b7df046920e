// The strip above the locks: who waits longest, what most wait for, how many there are, and whether all is well.

import { get } from "./api.js";
import { age, duration, now } from "./clock.js";
import { owner, shownName } from "./claims.js";
import { attribute, el, say, shown } from "./dom.js";
import { to } from "./route.js";

const number = (value) => value.toLocaleString("en");
const plural = (count, one, more) => `${number(count)} ${count === 1 ? one : more}`;

function card(title) {
    const figure = el("p", { class: "figure" }, "…");
    const name = el("a", { class: "name" });
    const words = el("p", { class: "soft" });
    const node = el("li", { class: "card" }, el("h2", {}, title), figure, name, words);
    return {
        node,
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

function holderOf(lock) {
    const [holder] = lock.holders;
    if (!holder) return "nobody holds it";
    const more = lock.holders.length > 1 ? ` and ${lock.holders.length - 1} more` : "";
    return `${owner(holder.owner)}${more} ${holder.state === "HELD" ? `for ${age(holder.since_seconds)}` : "ended, and still blocks it"}`;
}

/** The strip: its `node`, `read(store)` and `tick()`. */
export function summaryStrip() {
    const longest = card("Longest wait");
    const contended = card("Most contended");
    const counts = card("Locks");
    const health = card("Health");
    const node = el(
        "ul",
        { class: "strip", "aria-label": "Summary" },
        longest.node,
        contended.node,
        counts.node,
        health.node,
    );
    let seen = null;

    function show() {
        if (seen === null) return;
        const { byAge, byWaiters, verdict } = seen;
        const { summary } = byAge;
        const [first] = byAge.locks;
        const [most] = byWaiters.locks;
        const waiter = first?.waiters[0];
        if (waiter)
            longest.show(
                duration(now() - waiter.since_seconds),
                `${owner(waiter.owner)} waits; held by ${holderOf(first)}`,
                first.name,
            );
        else longest.show("Nobody waits", "");
        longest.kind(waiter ? "waits" : "calm");
        if (most && most.waiting > 1)
            contended.show(`${number(most.waiting)} wait`, `held by ${holderOf(most)}`, most.name);
        else contended.show("Nothing", most && most.waiting === 1 ? "no lock has more than one waiter" : "");
        contended.kind(most && most.waiting > 1 ? "waits" : "calm");
        const states = [
            [summary.held, "held"],
            [summary.waiting, "about to be taken"],
            [summary.lingering, "ended, still blocked"],
            [summary.waiters, "waiting in all"],
        ];
        counts.show(
            number(summary.locks),
            states
                .filter(([count]) => count > 0)
                .map(([count, word]) => `${number(count)} ${word}`)
                .join(" · "),
        );
        if (verdict) {
            const [worst] = verdict.reasons;
            const rest = verdict.reasons.length - 1;
            const words = worst
                ? `${worst.message}${rest > 0 ? `, and ${plural(rest, "more reason", "more reasons")}` : ""}`
                : "";
            health.show(verdict.status, words, worst?.name ?? null);
            health.kind(verdict.status);
        }
    }

    return {
        node,
        async read(store) {
            const [byAge, byWaiters, health] = await Promise.all([
                get("api/locks", { store, sort: "age", limit: 1, waiters: 1 }),
                get("api/locks", { store, sort: "waiters", limit: 1, waiters: 1 }),
                get("health"),
            ]);
            seen = { byAge, byWaiters, verdict: health.stores.find((one) => one.id === store) };
            show();
        },
        tick: show,
    };
}
