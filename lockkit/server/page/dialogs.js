// What is confirmed before it is done, and what is told after it.

import { get, post, Problem } from "./api.js";
import { clockTime } from "./clock.js";
import { el, say, shown } from "./dom.js";
import { may, sentence } from "./session.js";

const TOLD = 10_000; // ms for which a notice stays

/** Tell the visitor what was done. */
export function notice(text) {
    const line = document.getElementById("notices");
    say(line, text);
    clearTimeout(notice.timer);
    notice.timer = setTimeout(() => say(line, ""), TOLD);
}

/**
 * Ask the visitor to confirm something.
 *
 * @param title The question.
 * @param sentences What will happen.
 * @param fields The fields, as elements; a field is a label with an input.
 * @param button The word on the button, and its class.
 * @param send Does it. A Problem that it throws is shown in the dialog, which stays open.
 * @returns The dialog.
 */
export function confirm({ title, sentences, fields, button: [word, kind], send }) {
    const wrong = el("p", { class: "wrong", role: "alert", hidden: true });
    const told = el(
        "ul",
        { "aria-live": "polite" },
        sentences.map((text) => el("li", {}, text)),
    );
    const doIt = el("button", { type: "submit", class: kind }, word);
    const submit = async (event) => {
        event.preventDefault();
        doIt.disabled = true;
        shown(wrong, false);
        try {
            await send();
            dialog.close();
        } catch (error) {
            if (!(error instanceof Problem)) throw error;
            say(wrong, sentence(error));
            shown(wrong, true);
        } finally {
            doIt.disabled = false;
        }
    };
    const heading = el("h2", { id: "dialog-title" }, title);
    const leave = el("button", { type: "button", onclick: () => dialog.close() }, "Leave it");
    const dialog = el(
        "dialog",
        { "aria-labelledby": "dialog-title", onclose: () => dialog.remove() },
        el(
            "form",
            { onsubmit: submit },
            heading,
            told,
            fields,
            wrong,
            el("div", { class: "buttons" }, leave, doIt),
        ),
    );
    document.body.append(dialog);
    dialog.showModal();
    (dialog.querySelector("input, select") ?? leave).focus();
    return {
        /** Replace the sentences, because something that the visitor chose has changed them. */
        tell(others) {
            told.replaceChildren(...others.map((text) => el("li", {}, text)));
        },
    };
}

/** A field with a label. */
export function field(label, attributes = {}) {
    const input = el("input", { type: "text", maxlength: 100, autocomplete: "off", ...attributes });
    return { input, node: el("label", { class: "field" }, label, input) };
}

const ACTS = {
    evict: {
        act: "evict",
        path: "api/evict",
        label: "Reason (the evicted user sees it)",
        button: ["Evict", "danger"],
    },
    ask: {
        act: "ask-release",
        path: "api/ask-release",
        label: "Reason (the holder sees it)",
        button: ["Ask to release", "main"],
    },
};

/** Evict a claim, or ask its holder to release, after a confirmation that says what will happen. The server knows what that is. */
export async function act({ store, what, claim, done }) {
    const { act, path, label, button } = ACTS[what];
    const { name, claim_id } = claim;
    const about = (now) => get("api/consequences", { store, name, claim_id, act, now: now || null });
    let seen;
    try {
        seen = await about(false);
    } catch (error) {
        if (!(error instanceof Problem)) throw error;
        notice(sentence(error));
        done();
        return;
    }
    const [title, ...sentences] = seen.sentences;
    const reason = field(label, { required: true });
    const now = el("input", { type: "checkbox" });
    const holds = ["HELD", "LINGERING"].includes(seen.claim.state);
    const atOnce = el(
        "label",
        { class: "check" },
        now,
        "At once, without waiting until the holder has stopped",
    );
    const dialog = confirm({
        title,
        sentences,
        fields: [reason.node, ...(what === "evict" && holds && may("admin") ? [atOnce] : [])],
        button,
        send: async () => {
            const made = await post(path, {
                store,
                name,
                claim_id,
                reason: reason.input.value,
                now: now.checked || null,
            });
            notice(outcome(what, made));
            done();
        },
    });
    now.addEventListener("change", async () => {
        const chosen = now.checked;
        let told;
        try {
            told = (await about(chosen)).sentences.slice(1);
        } catch (error) {
            if (!(error instanceof Problem)) throw error;
            told = [sentence(error)];
        }
        if (now.checked === chosen) dialog.tell(told);
    });
}

/** The same for several claims, after one confirmation that lists them. Those for which it fails stay in the dialog, each with the reason. */
export async function actOnAll({ store, what, claims, done }) {
    const { act, path, label, button } = ACTS[what];
    const told = async ({ name, claim_id }) => {
        const one = `claim ${claim_id} of ${name}:`;
        try {
            const { sentences } = await get("api/consequences", { store, name, claim_id, act });
            return `${one} ${sentences.slice(1, 3).join(" ")}`;
        } catch (error) {
            if (!(error instanceof Problem)) throw error;
            return `${one} ${sentence(error)}`;
        }
    };
    const sentences = await Promise.all(claims.map(told));
    const left = new Map(claims.map((claim, index) => [claim, sentences[index]]));
    const reason = field(label, { required: true });
    const dialog = confirm({
        title: `${what === "ask" ? "Ask the holders of" : "Evict"} ${claims.length === 1 ? "1 claim" : `${claims.length} claims`}?`,
        sentences,
        fields: [reason.node],
        button,
        send: async () => {
            const wrong = [];
            for (const claim of [...left.keys()]) {
                const { name, claim_id } = claim;
                try {
                    await post(path, { store, name, claim_id, reason: reason.input.value });
                    left.delete(claim);
                } catch (error) {
                    if (!(error instanceof Problem)) throw error;
                    wrong.push(`For ${name}: ${sentence(error)}`);
                }
            }
            notice(`${claims.length - left.size} of ${claims.length} ${what === "ask" ? "asked" : "evicted"}.`);
            done();
            dialog.tell([...left.values()]);
            if (wrong.length > 0) throw new Problem(0, { message: wrong.join(" ") });
        },
    });
}

function outcome(what, { name, claim_id, outcome, blocks_until_seconds: until }) {
    if (what === "ask") return `The holder of ${name} hears of your request with its next renewal.`;
    if (outcome === "REMOVED") return `Claim ${claim_id} of ${name} was removed.`;
    return `Claim ${claim_id} of ${name} is evicted${until ? `, and blocks the lock until ${clockTime(until)} at the latest` : ""}.`;
}
