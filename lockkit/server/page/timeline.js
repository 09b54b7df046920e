// Who held a lock, and when: a drawing, and the same as a table for those who do not see it.

import { get, Problem } from "./api.js";
import { owner } from "./claims.js";
import { clockTime, duration, now } from "./clock.js";
import { el, say, shown } from "./dom.js";
import { drawing, endWords } from "./drawing.js";
import { change, here } from "./route.js";
import { sentence } from "./session.js";
import { table } from "./table.js";

const SPANS = { 900: "15 minutes", 3600: "hour", 21600: "6 hours", 86400: "day", 604800: "7 days" };
const USUAL = 3600;
const LIMIT = 500;
const ROWS = 100;
const CALM = 20_000; // ms between two looks at the journals, which cost the server more than a look at the store
const STILL = 5_000; // ms for which an unchanged drawing stays, so that one can point at a hold and read about it
const WORDS = "timeline-words";
const NO_JOURNAL =
    "There is no event journal on the server’s host, so only the present holders are drawn. The setting journal = true keeps one.";

/** A hold as it is drawn. Of a past one whose end is not known, only the beginning is. */
export function past(one) {
    return {
        name: one.name,
        claim: one.claim_id,
        fence: one.fence,
        user: one.owner.user,
        who: owner(one.owner),
        from: one.began_seconds,
        until: one.ended_seconds ?? one.began_seconds,
        end: one.end,
        reason: one.reason,
        waited: one.waited_seconds,
    };
}

/** A present holder, of which the journals of this host may know nothing. */
function present(claim) {
    return {
        claim: claim.claim_id,
        fence: claim.fence,
        user: claim.owner.user,
        who: owner(claim.owner),
        from: claim.since_seconds,
        until: null,
        end: "held",
        reason: claim.reason,
        waited: null,
    };
}

/** The row of a hold in a table: the columns Holder, From, For, Waited, End. */
export function pastRow() {
    const cells = [...Array(5)].map(() => el("span"));
    return {
        cells,
        show(hold) {
            const texts = [
                hold.who,
                clockTime(hold.from),
                duration(hold.until - hold.from),
                hold.waited === null ? "" : duration(hold.waited),
                endWords(hold),
            ];
            cells.forEach((cell, index) => say(cell, texts[index]));
        },
    };
}

const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

/** What is drawn, in words. */
function summed(holds, from, missing, time) {
    if (holds.length === 0) return `Nobody held it in the last ${time}, as far as the journals say.`;
    const held = holds.reduce((sum, hold) => sum + hold.until - Math.max(hold.from, from), 0);
    const users = new Set(holds.map(({ user }) => user)).size;
    const rest = missing ? `; ${missing} of them are not drawn` : "";
    return `${plural(holds.length, "hold")} of ${plural(users, "user")} in the last ${time}, ${duration(held)} in all${rest}.`;
}

/** The choice of how far back to look: its `select`, and `span()`, in seconds. */
export function spanPart() {
    const span = () => (here().query.get("span") in SPANS ? Number(here().query.get("span")) : USUAL);
    const choose = () => change({ span: select.value === String(USUAL) ? null : select.value });
    const options = Object.entries(SPANS).map(([seconds, text]) =>
        el("option", { value: seconds }, `the last ${text}`),
    );
    const select = el("select", { id: "span", onchange: choose }, options);
    select.value = String(span());
    return { span, select };
}

/** The timeline of a lock: its `node`, `read(holders)` and `moved()`. */
export function timelinePart({ store, name }) {
    const { span, select } = spanPart();
    const picture = el("div", { class: "picture" });
    const words = el("p", { class: "soft", id: WORDS });
    const trouble = el("p", { class: "soft", hidden: true });
    const rows = table(
        "Holds of this lock, the newest first",
        ["Holder", "From", "For", "Waited", "End"],
        ({ claim, fence }) => `${claim} ${fence}`,
        pastRow,
    );
    const details = el("details", { hidden: true }, el("summary", {}, "The same as a table"), rows.node);
    const node = el(
        "section",
        { "aria-label": "Timeline" },
        el(
            "div",
            { class: "heading" },
            el("h2", {}, "Timeline"),
            el("label", { for: "span" }, "Show", select),
        ),
        picture,
        words,
        trouble,
        details,
    );
    let holds = []; // of the journals
    let holders = []; // of the store
    let none = false; // whether there is no journal that could be asked
    let asked = { at: -Infinity, key: "" };
    let drawn = { at: -Infinity, key: "" };

    function show() {
        const until = now();
        const from = until - span();
        const known = new Set(holds.map(({ claim }) => claim));
        const unknown = holders.filter(({ state, claim_id: id }) => state === "HELD" && !known.has(id));
        const all = [...holds, ...unknown.map(present)]
            .map((hold) => (hold.end === "held" ? { ...hold, until } : hold))
            .filter((hold) => hold.until >= from)
            .sort((one, other) => one.from - other.from);
        const width = Math.max(Math.floor(picture.clientWidth), 260);
        const key = `${span()} ${width} ${all.map(({ claim, fence, end }) => `${claim} ${fence} ${end}`)}`;
        if (key === drawn.key && performance.now() - drawn.at < STILL) return;
        drawn = { at: performance.now(), key };
        const made = drawing(all, from, until, width, WORDS);
        picture.replaceChildren(made.node);
        say(words, summed(all, from, made.missing, SPANS[span()]));
        rows.show(all.toReversed().slice(0, ROWS));
        shown(details, all.length > 0);
    }
    new ResizeObserver(() => picture.firstChild && show()).observe(picture);

    /** Read the journals, if the holders have changed or a while has passed. */
    async function look() {
        const key = `${span()} ${holders.map((claim) => claim.claim_id)}`;
        if (none || (asked.key === key && performance.now() - asked.at < CALM)) return;
        const mine = { at: performance.now(), key };
        asked = mine;
        try {
            const since = Math.floor(now() - span());
            const document = await get("api/history", { name, store, since, limit: LIMIT });
            if (asked !== mine) return; // something else was asked for meanwhile
            holds = document.holds.map(past);
            none = Boolean(document.reason);
            if (none) say(trouble, NO_JOURNAL);
            shown(trouble, none);
        } catch (error) {
            if (!(error instanceof Problem)) throw error;
            if (asked !== mine) return;
            say(trouble, sentence(error));
            shown(trouble, true);
        }
        show();
    }

    return {
        node,
        /** Show these holders, and the past behind them. Never waits for the past, which may take longer than the present. */
        read(present) {
            holders = present;
            show();
            look();
        },
        moved() {
            select.value = String(span());
        },
    };
}
