// Parts of rows about one claim: whose it is, what for, how far it is, how long it stays, and what can be done about it.

import { age, clockTime, duration, now } from "./clock.js";
import { attribute, el, say, shown, unseen } from "./dom.js";
import { may } from "./session.js";

/** The parts of the name of a lock that belongs to a pool, as lockkit/notes/members.py makes it: the pool, and the member unless it is the gate. */
export function inPool(name) {
    if (!name.startsWith("@pool/")) return null;
    return name
        .split("/")
        .slice(1)
        .map((part) => part.replaceAll("%2F", "/").replaceAll("%25", "%"));
}

/** A name as people read it: of a member of a pool, the pool and the member. */
export function shownName(name) {
    const [pool, member = "queue"] = inPool(name) ?? [];
    return pool === undefined ? name : `${pool}: ${member}`;
}

/** The owner of a claim in a few words: ann@box, with the pod, its node and the task if there are any. */
export function owner({ user, host, pod, pod_namespace: namespace, node, task }) {
    const where = pod ? [namespace, pod].filter(Boolean).join("/") : host;
    return [`${user}@${where}`, node && `node ${node}`, task && `task ${task}`].filter(Boolean).join(", ");
}

/** The remarks on a claim that is not as it should be. */
function marks(claim) {
    const made = [];
    if (claim.evicted) made.push(["bad", "evicted"]);
    else if (claim.state === "LINGERING") made.push(["warn", "ended, still blocks"]);
    if (claim.process === "gone" && claim.kept_by.length === 0) made.push(["bad", "its process has ended"]);
    if (claim.process === "stopped") made.push(["warn", "its process is stopped"]);
    if (claim.kept_by.length > 0)
        made.push([
            "warn",
            `kept by ${claim.kept_by.map(({ program, pid }) => `${program} (pid ${pid})`).join(", ")}`,
        ]);
    for (const { by, reason } of claim.release_requests)
        made.push(["note", `${by} asks to release: ${reason}`]);
    return made;
}

/** Whose claim it is, and what for. */
export function whoPart() {
    const who = el("span", { class: "who" });
    const program = el("span", { class: "soft" });
    const reason = el("span", { class: "reason" });
    const remarks = el("span", { class: "marks" });
    const progress = progressPart();
    let told = "";
    return {
        node: el("div", { class: "claim" }, who, " ", program, reason, progress.node, remarks),
        show(claim) {
            say(who, owner(claim.owner));
            say(program, `${claim.owner.program || "?"} · pid ${claim.owner.pid}`);
            attribute(
                who,
                "title",
                `claim ${claim.claim_id}, fence ${claim.fence}, host ${claim.owner.host}, lockkit ${claim.owner.version}`,
            );
            say(reason, claim.reason);
            shown(reason, claim.reason !== "");
            progress.show(claim.progress);
            const made = marks(claim);
            if (JSON.stringify(made) !== told) {
                told = JSON.stringify(made);
                remarks.replaceChildren(
                    ...made.map(([kind, text]) => el("span", { class: `mark ${kind}` }, text)),
                );
            }
        },
    };
}

/** A bar, which is filled to a share of 0 to 1. What it says must be told in words beside it. */
export function barPart(kind) {
    const fill = el("span", { class: "fill" });
    return {
        node: el("span", { class: `bar ${kind}`, "aria-hidden": "true" }, fill),
        show(share) {
            // A style attribute is forbidden by the page's policy; a style that a script sets is not.
            fill.style.setProperty("inline-size", `${(Math.min(Math.max(share, 0), 1) * 100).toFixed(1)}%`);
        },
    };
}

/** How far a holder is, if it tells. */
function progressPart() {
    const bar = barPart("done");
    const words = el("span", {});
    const node = el("span", { class: "progress", hidden: true }, bar.node, words);
    return {
        node,
        show(progress) {
            shown(node, progress !== null);
            if (progress === null) return;
            shown(bar.node, progress.done !== null);
            bar.show(progress.done ?? 0);
            const share = progress.done === null ? "" : `${Math.floor(progress.done * 100)} %`;
            say(words, [share, progress.message].filter(Boolean).join(" · "));
            attribute(words, "title", `told ${age(progress.at_seconds)} ago`);
        },
    };
}

/** How much of its ttl a claim has left. */
export function ttlPart() {
    const bar = barPart("ttl");
    const words = el("span", {});
    return {
        node: el("span", { class: "ttl-left" }, bar.node, words),
        show(claim) {
            const { deadline_seconds: deadline, ttl_seconds: ttl, process_bound: bound } = claim;
            // What a waiter has left is no share of its ttl: it says often that it still waits.
            shown(bar.node, deadline !== null && (claim.state === "HELD" || claim.state === "LINGERING"));
            if (deadline === null) {
                say(words, bound ? "as long as its process" : "not told");
                return;
            }
            const left = Math.max(deadline - now(), 0);
            bar.show(ttl > 0 ? left / ttl : 0);
            attribute(bar.node, "data-low", left < ttl / 3);
            say(words, duration(left));
            attribute(
                words,
                "title",
                `lapses at ${clockTime(deadline)}, unless it is renewed; ttl ${duration(ttl)}`,
            );
        },
    };
}

/** Whether the visitor may ask for the release of a claim, or evict it. */
export function mayAct(claim) {
    return may("operate") && claim !== null && !claim.evicted && claim.state !== "LINGERING";
}

/** The buttons for what may be done about a claim. `act(what, claim)` is called with "evict" or "ask". */
export function actsPart(act) {
    let seen = null;
    const button = (what, text) => {
        const about = unseen("");
        return {
            about,
            node: el(
                "button",
                { type: "button", class: "small", onclick: () => act(what, seen) },
                text,
                about,
            ),
        };
    };
    const ask = button("ask", "Ask to release…");
    const evict = button("evict", "Evict…");
    const node = el("div", { class: "acts" }, ask.node, evict.node);
    return {
        node,
        show(claim) {
            seen = claim;
            shown(evict.node, mayAct(claim));
            shown(ask.node, mayAct(claim) && claim.state === "HELD");
            if (claim)
                for (const { about } of [ask, evict]) say(about, ` claim ${claim.claim_id} of ${claim.name}`);
        },
    };
}
