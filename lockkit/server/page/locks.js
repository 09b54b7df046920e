// The first view: who blocks whom now. The server filters, sorts and pages, so that a thousand locks cost no more than fifty.

import { get } from "./api.js";
import { actsPart, inPool, mayAct, owner, shownName, ttlPart, whoPart } from "./claims.js";
import { age, clockTime, heard } from "./clock.js";
import { act, actOnAll } from "./dialogs.js";
import { attribute, el, say, shown } from "./dom.js";
import { searchPart } from "./filter.js";
import { pagerPart } from "./pager.js";
import { change, here, to } from "./route.js";
import { summaryStrip } from "./summary.js";
import { table } from "./table.js";

const OTHERS = "Pools, and locks of lockkit itself"; // their names begin with @
const LIMIT = 50;
const SORTS = { age: "longest wait", waiters: "most waiters", name: "name" };
const STATES = {
    "": "all states",
    held: "held",
    waiting: "about to be taken",
    lingering: "ended, still blocked",
};
const SHOWN_STATES = { held: "held", waiting: "about to be taken", lingering: "still blocked", free: "free" };

/** What the server takes for the words of the filter: words without * match anywhere in a name. */
function pattern(words) {
    if (words === "") return null;
    return /[*?[]/.test(words) ? words : `*${words}*`;
}

function choice(id, label, options, value) {
    const select = el("select", { id, onchange: () => change({ [id]: select.value, offset: null }) });
    for (const [name, text] of Object.entries(options)) select.append(el("option", { value: name }, text));
    select.value = value;
    return { select, node: el("label", { for: id }, label, select) };
}

/** The state of a lock and what kind it is, in a few words. */
export function stateWords({ name, state, capacity, available, holders }) {
    const kind = holders[0]?.kind;
    if (state === "held" && inPool(name)) return available > 0 ? "partly held" : "held";
    if (state === "held" && kind === "semaphore") return `${capacity - available} of ${capacity} held`;
    if (state === "held" && kind === "read")
        return holders.length === 1 ? "1 reader" : `${holders.length} readers`;
    if (state === "held" && kind === "write") return "1 writer";
    return SHOWN_STATES[state];
}

function lockRow({ chosen, ...about }) {
    const pick = el("input", { type: "checkbox", onchange: () => chosen.turn(held, pick.checked) });
    let held = null;
    const name = el("a", { class: "name" });
    const state = el("span", { class: "pill" });
    const who = whoPart();
    const more = el("a", { class: "soft" });
    const since = el("span", {});
    const ttl = ttlPart();
    const waiting = el("span", { class: "count" });
    const longest = el("span", {});
    const first = el("span", { class: "soft first" });
    const acts = actsPart((what, claim) => act({ ...about, what, claim }));
    return {
        cells: [[pick, name, state], [who.node, more], since, ttl.node, waiting, [longest, first], acts.node],
        show(lock, row) {
            const [holder = null] = lock.holders;
            const waiter = lock.waiters[0] ?? null;
            attribute(row, "data-waits", lock.waiting > 0);
            say(name, shownName(lock.name));
            attribute(name, "href", to("lock", { name: lock.name }));
            say(state, stateWords(lock));
            attribute(state, "data-state", lock.state);
            for (const part of [who.node, ttl.node]) shown(part, holder !== null);
            if (holder !== null) {
                who.show(holder);
                ttl.show(holder);
            }
            acts.show(holder);
            held = holder;
            shown(pick, mayAct(holder));
            pick.checked = chosen.has(holder);
            attribute(pick, "aria-label", `Choose ${shownName(lock.name)}`);
            const others = lock.holders.length - 1;
            shown(more, others > 0);
            say(more, `and ${others} more`);
            attribute(more, "href", to("lock", { name: lock.name }));
            say(since, holder === null ? "" : age(holder.since_seconds));
            say(waiting, lock.waiting ? lock.waiting.toLocaleString("en") : "–");
            attribute(waiting, "data-some", lock.waiting > 0);
            say(longest, waiter === null ? "" : age(waiter.since_seconds));
            say(first, waiter === null ? "" : owner(waiter.owner));
        },
    };
}

/** The holders that the visitor has chosen, and what can be done about all of them at once. */
function chosenPart(about) {
    const claims = new Map();
    const count = el("span", {});
    const button = (what, text) =>
        el(
            "button",
            {
                type: "button",
                class: "small",
                onclick: () => actOnAll({ ...about, what, claims: [...claims.values()] }),
            },
            text,
        );
    const node = el(
        "div",
        { class: "chosen", role: "group", "aria-label": "Chosen locks", hidden: true },
        count,
        button("ask", "Ask to release…"),
        button("evict", "Evict…"),
    );
    function show() {
        shown(node, claims.size > 0);
        say(count, `${claims.size} chosen`);
    }
    return {
        node,
        has: (claim) => claims.has(claim?.claim_id),
        turn(claim, on) {
            if (on) claims.set(claim.claim_id, claim);
            else claims.delete(claim.claim_id);
            show();
        },
        /** Keep only those that are still shown, and about which something can be done. */
        keep(locks) {
            const there = new Set(locks.map(({ holders: [one = null] }) => mayAct(one) && one.claim_id));
            for (const id of claims.keys()) if (!there.has(id)) claims.delete(id);
            show();
        },
    };
}

/** The view of all locks of a store. */
export function locksView({ store, refresh }) {
    const strip = summaryStrip();
    const chosen = chosenPart({ store, done: refresh });
    const { query } = here();
    const filter = searchPart("pattern", "Filter", "part of a name, or team/*");
    const state = choice("state", "Show", STATES, query.get("state") ?? "");
    const sort = choice("sort", "Sort by", SORTS, query.get("sort") ?? "age");
    const headings = [
        "Lock",
        ["Held by", "wide"],
        ["For", "time"],
        "Time left",
        ["Waiting", "right waits"],
        ["Longest wait", "waits"],
        ["Actions", "wide acts-col"],
    ];
    const tableOf = (label) =>
        table(
            label,
            headings,
            (lock) => lock.name,
            () => lockRow({ store, done: refresh, chosen }),
        );
    const rows = tableOf("Locks with their holders and queues");
    const others = tableOf(OTHERS);
    const apart = el("div", { class: "apart", hidden: true }, el("h2", {}, OTHERS), others.node);
    const pager = pagerPart("Pages of locks", (offset) => change({ offset: offset || null }));
    const empty = el("p", { class: "empty", hidden: true });
    shown(rows.node, false); // until something was read
    const remarks = el("div", { class: "remarks" });
    const read = el("p", { class: "soft read-at" });
    let seen = null;

    function show() {
        if (seen === null) return;
        const { locks, summary, unread, drained, read_at_seconds: at } = seen.found;
        chosen.keep(locks);
        const own = locks.filter(({ name }) => !name.startsWith("@"));
        rows.show(own);
        shown(rows.node, own.length > 0);
        others.show(locks.slice(own.length));
        shown(apart, own.length < locks.length);
        shown(empty, locks.length === 0);
        say(
            empty,
            seen.chosen ? "No lock matches the filter." : "Nobody holds a lock, and nobody waits for one.",
        );
        pager.show({
            offset: seen.offset,
            limit: LIMIT,
            count: locks.length,
            total: summary.locks + summary.gates,
        });
        const told = [];
        if (drained) {
            const why = drained.reason ? `: ${drained.reason}` : "";
            told.push(
                `${owner(drained.owner)} drains this namespace since ${clockTime(drained.since_seconds)}${why}. No new locks are given.`,
            );
        }
        for (const one of unread) told.push(`${one.name} cannot be read: ${one.message}`);
        if (remarks.textContent !== told.join(""))
            remarks.replaceChildren(...told.map((text) => el("p", { class: "mark warn" }, text)));
        say(read, `As the store was at ${clockTime(at)}`);
    }

    return {
        title: "Locks",
        node: el(
            "div",
            {},
            el("h1", { tabindex: -1 }, "Who blocks whom now"),
            strip.node,
            remarks,
            el(
                "section",
                { "aria-label": "Locks" },
                el(
                    "form",
                    {
                        class: "filters",
                        role: "search",
                        "aria-label": "Choose locks",
                        onsubmit: (event) => event.preventDefault(),
                    },
                    filter.node,
                    state.node,
                    sort.node,
                ),
                chosen.node,
                rows.node,
                apart,
                empty,
                pager.node,
                read,
            ),
        ),
        async read() {
            const wanted = here().query;
            const offset = Number(wanted.get("offset")) || 0;
            const words = wanted.get("pattern") ?? "";
            const chosen = words !== "" || wanted.has("state");
            const [found] = await Promise.all([
                get("api/locks", {
                    store,
                    pattern: pattern(words),
                    state: wanted.get("state"),
                    sort: wanted.get("sort"),
                    apart: true,
                    offset,
                    limit: LIMIT,
                    waiters: 1,
                }),
                strip.read(store),
            ]);
            heard(found.read_at_seconds);
            seen = { found, offset, chosen };
            show();
            return found.read_at_seconds;
        },
        moved() {
            const wanted = here().query;
            state.select.value = wanted.get("state") ?? "";
            sort.select.value = wanted.get("sort") ?? "age";
            filter.moved();
        },
        tick() {
            strip.tick();
            show();
        },
    };
}
