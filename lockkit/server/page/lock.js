// One lock: who holds it, who waits in which order, and who held it before.

import { get } from "./api.js";
import { actsPart, shownName, ttlPart, whoPart } from "./claims.js";
import { age, clockTime, heard } from "./clock.js";
import { act } from "./dialogs.js";
import { attribute, el, list, say, shown } from "./dom.js";
import { stateWords } from "./locks.js";
import { pagerPart } from "./pager.js";
import { back, change, here, to } from "./route.js";
import { table } from "./table.js";
import { timelinePart } from "./timeline.js";

const LIMIT = 100;
const KINDS = { mutex: "", semaphore: "permits", read: "reads", write: "writes" };

/** What a claim asks for, where it is not simply the lock. */
function kindWords({ kind, weight }) {
    return kind === "semaphore" ? `${weight} ${weight === 1 ? "permit" : "permits"}` : KINDS[kind];
}

function claimRow(about, place) {
    const number = el("span", { class: "count" });
    const who = whoPart();
    const kind = el("span", { class: "pill" });
    const since = el("span", {});
    const ttl = ttlPart();
    const id = el("span", { class: "code" });
    const acts = actsPart((what, claim) => act({ ...about, what, claim }));
    const cells = [[who.node, kind], since, ttl.node, id, acts.node];
    return {
        cells: place ? [number, ...cells] : cells,
        show({ claim, place }) {
            say(number, place ? place.toLocaleString("en") : "");
            who.show(claim);
            say(
                kind,
                [claim.state === "OFFERED" ? "is offered the lock" : "", kindWords(claim)]
                    .filter(Boolean)
                    .join(", "),
            );
            shown(kind, kind.textContent !== "");
            say(since, age(claim.since_seconds));
            attribute(since, "title", `since ${clockTime(claim.since_seconds)}`);
            ttl.show(claim);
            say(id, `${claim.claim_id} · ${claim.fence}`);
            acts.show(claim);
        },
    };
}

/** The view of one lock. */
export function lockView({ store, refresh }) {
    const name = here().query.get("name") ?? "";
    const state = el("span", { class: "pill" });
    const facts = el("p", { class: "soft" });
    const key = ({ claim }) => claim.claim_id;
    const tail = [["For", "time"], "Time left", ["Claim · fence", "wide"], ["Actions", "wide acts-col"]];
    const holders = table("Holders of this lock", [["Holder", "wide"], ...tail], key, () =>
        claimRow({ store, done: refresh }, false),
    );
    const waiters = table(
        "Those who wait for this lock, in order",
        ["Place", ["Waiter", "wide"], ...tail],
        key,
        () => claimRow({ store, done: refresh }, true),
    );
    const pager = pagerPart("Pages of the queue", (offset) => change({ offset: offset || null }));
    const free = el("p", { class: "empty", hidden: true });
    const alone = el("p", { class: "empty", hidden: true }, "Nobody waits.");
    const count = el("span", {});
    const near = el("p", { class: "soft", hidden: true }, "Names in use that are like it: ");
    const nearNames = el("span", { class: "near" });
    near.append(nearNames);
    const showNear = list(nearNames, String, (one) => {
        const node = el("a", { class: "name", href: to("lock", { name: one }) }, shownName(one));
        return { node, show() {} };
    });
    const timeline = timelinePart({ store, name });
    let seen = null;

    function show() {
        if (seen === null) return;
        const { lock, offset } = seen;
        say(state, stateWords(lock));
        attribute(state, "data-state", lock.state);
        const room =
            lock.capacity > 1 && lock.available !== null
                ? `capacity ${lock.capacity}, ${lock.available} free · `
                : "";
        say(facts, `${room}as the store was at ${clockTime(lock.read_at_seconds)}`);
        holders.show(lock.holders.map((claim) => ({ claim })));
        shown(holders.node, lock.holders.length > 0);
        shown(free, lock.holders.length === 0);
        say(
            free,
            lock.waiting > 0
                ? "Nobody holds it at this moment: the next one is about to."
                : "Nobody holds this lock, and nobody waits for it.",
        );
        waiters.show(lock.waiters.map((claim, index) => ({ claim, place: offset + index + 1 })));
        shown(waiters.node, lock.waiters.length > 0);
        shown(alone, lock.waiters.length === 0);
        say(alone, lock.waiting > 0 ? "The queue is shorter by now." : "Nobody waits.");
        say(count, lock.waiting > 0 ? ` · ${lock.waiting.toLocaleString("en")}` : "");
        pager.show({ offset, limit: LIMIT, count: lock.waiters.length, total: lock.waiting });
        shown(near, seen.near.length > 0);
        showNear(seen.near);
    }

    return {
        title: name,
        node: el(
            "div",
            {},
            el("p", { class: "back" }, el("a", { href: back() }, "← All locks")),
            el(
                "div",
                { class: "heading" },
                el("h1", { tabindex: -1, class: "name" }, shownName(name)),
                state,
            ),
            facts,
            near,
            el("section", { "aria-label": "Holders" }, el("h2", {}, "Holders"), holders.node, free),
            el(
                "section",
                { "aria-label": "Queue" },
                el("h2", {}, "Queue", count),
                waiters.node,
                alone,
                pager.node,
            ),
            timeline.node,
        ),
        async read() {
            const offset = Number(here().query.get("offset")) || 0;
            const found = await get("api/lock", { name, store, offset, waiters: LIMIT });
            heard(found.read_at_seconds);
            seen = { lock: found.locks[0], near: found.near, offset };
            show();
            timeline.read(found.locks[0].holders);
            return found.read_at_seconds;
        },
        moved: () => timeline.moved(),
        tick: show,
    };
}
