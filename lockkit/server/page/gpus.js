// The GPUs of the server's host: who holds them, what of their memory is declared and used, and how the last holder left them.

import { get, post } from "./api.js";
import { barPart, owner, whoPart } from "./claims.js";
import { age, clockTime, duration, heard } from "./clock.js";
import { confirm, field, notice } from "./dialogs.js";
import { attribute, el, list, say, shown } from "./dom.js";
import { may } from "./session.js";

const BAD = ["faulty", "quarantined"];
const WARN = ["busy", "dirty", "unknown", "unheld"];

/** A size as people read it: 512 MiB, 11.5 GiB. */
export function size(bytes) {
    if (bytes === null) return "unknown";
    const gib = bytes / 2 ** 30;
    if (gib >= 1) return `${gib >= 100 ? Math.round(gib) : Number(gib.toFixed(1))} GiB`;
    return `${Math.round(bytes / 2 ** 20)} MiB`;
}

/** A row of facts: a bar and words. */
function gauge(label) {
    const bar = barPart("wide");
    const words = el("span", {});
    const node = el("div", { class: "gauge" }, el("dt", {}, label), el("dd", {}, bar.node, words));
    return {
        node,
        show(share, text) {
            shown(bar.node, share !== null);
            bar.show(share ?? 0);
            say(words, text);
        },
    };
}

function holderPart() {
    const who = whoPart();
    const use = el("span", { class: "soft" });
    const much = el("span", { class: "mark bad" }, "uses more than it declared");
    return {
        node: el("li", {}, who.node, use, " ", much),
        show({ claim, use: told }) {
            who.show(claim);
            const declared =
                told?.declared_bytes === null || !told
                    ? "the whole GPU"
                    : `${size(told.declared_bytes)} declared`;
            const used = told?.used_bytes === null || !told ? "" : `, ${size(told.used_bytes)} used`;
            const idle = told?.idle_seconds ? `, idle for ${duration(told.idle_seconds)}` : "";
            say(use, `${declared}${used}${idle}; held for ${age(claim.since_seconds)}`);
            shown(much, told?.more_than_declared ?? false);
        },
    };
}

function receiptWords({ outcome, leftover_bytes: left, left_by: by, by: who, at_seconds: at, errors }) {
    const rest = left ? `, ${size(left)} left behind${by.length ? ` by ${by.join(", ")}` : ""}` : "";
    const how = outcome === "unknown" ? "in an unknown state" : outcome;
    return [`Left ${how} by ${who} at ${clockTime(at)}${rest}`, ...errors].join("; ");
}

function card(ask) {
    const title = el("h2", {});
    const state = el("span", { class: "pill" });
    const uuid = el("p", { class: "soft code" });
    const why = el("p", { class: "soft" });
    const memory = gauge("Memory used");
    const declared = gauge("Declared");
    const load = gauge("Utilisation");
    const holders = el("ul", { class: "holders", "aria-label": "Holders" });
    const showHolders = list(holders, ({ claim }) => claim.claim_id, holderPart);
    const nobody = el("p", { class: "soft" }, "Nobody holds it.");
    const unmanaged = el("p", { class: "mark bad" });
    const receipt = el("p", { class: "soft receipt" });
    const quarantine = el(
        "button",
        { type: "button", class: "small", onclick: () => ask(seen) },
        "Quarantine…",
    );
    let seen = null;
    const node = el(
        "article",
        { class: "card gpu" },
        el("div", { class: "heading" }, title, state),
        uuid,
        why,
        el("dl", {}, memory.node, declared.node, load.node),
        holders,
        nobody,
        unmanaged,
        receipt,
        el("div", { class: "acts" }, quarantine),
    );
    return {
        node,
        show(gpu) {
            seen = gpu;
            const { memory_bytes: total, used_bytes: used, utilisation_percent: percent } = gpu;
            say(
                title,
                `${gpu.parent ? "Slice" : "GPU"} ${gpu.index < 0 ? "?" : gpu.index}${gpu.name ? ` · ${gpu.name}` : ""}`,
            );
            say(state, gpu.state);
            attribute(
                state,
                "data-kind",
                BAD.includes(gpu.state) ? "bad" : WARN.includes(gpu.state) ? "warn" : "good",
            );
            attribute(
                node,
                "data-kind",
                BAD.includes(gpu.state) ? "unhealthy" : WARN.includes(gpu.state) ? "warning" : "",
            );
            say(uuid, gpu.uuid ?? "");
            const reasons = ["held", "shared"].includes(gpu.state) ? [] : gpu.reasons; // its holders stand below
            const waiting = gpu.waiting ? [`${gpu.waiting} wait for it`] : [];
            const told = [...new Set([...reasons, ...gpu.faults]), ...waiting]; // a fault is a reason, too
            say(why, told.join("; "));
            shown(why, told.length > 0);
            memory.show(total && used !== null ? used / total : null, `${size(used)} of ${size(total)}`);
            const uses = gpu.holders.map((claim) => ({
                claim,
                use: gpu.uses.find((one) => one.claim_id === claim.claim_id),
            }));
            const sum = uses.reduce((all, { use }) => all + (use?.declared_bytes ?? total ?? 0), 0);
            declared.show(
                total && uses.length ? sum / total : uses.length ? null : 0,
                uses.length ? `${size(sum)} of ${size(total)}` : "nothing",
            );
            load.show(percent === null ? null : percent / 100, percent === null ? "unknown" : `${percent} %`);
            showHolders(uses);
            shown(holders, uses.length > 0);
            shown(nobody, uses.length === 0);
            say(unmanaged, `Used without a lock by ${gpu.unmanaged_users.join(", ")}`);
            shown(unmanaged, gpu.unmanaged_users.length > 0);
            shown(receipt, gpu.receipt !== null);
            if (gpu.receipt) say(receipt, receiptWords(gpu.receipt));
            shown(quarantine, may("operate") && gpu.uuid !== null && gpu.quarantine === null);
        },
    };
}

/** The view of GPUs. */
export function gpusView({ store, refresh }) {
    const cards = el("div", { class: "gpus" });
    const remarks = el("div", { class: "remarks" });
    const empty = el(
        "p",
        { class: "empty", hidden: true },
        "The server’s host has no GPU that lockkit can see.",
    );
    const about = el("p", { class: "soft" });
    let host = null;

    function quarantine(gpu) {
        const reason = field("Reason", { required: true });
        confirm({
            title: `Quarantine GPU ${gpu.index} of ${host}?`,
            sentences: [
                `${gpu.uuid} is given to nobody until somebody runs lockkit gpu clear on ${host}.`,
                gpu.holders.length
                    ? `${gpu.holders.map((claim) => owner(claim.owner)).join(", ")} may go on until the release.`
                    : "Nobody holds it now.",
            ],
            fields: [reason.node],
            button: ["Quarantine", "danger"],
            send: async () => {
                await post(`api/gpus/${encodeURIComponent(gpu.uuid)}/quarantine`, {
                    host,
                    reason: reason.input.value,
                    store,
                });
                notice(`GPU ${gpu.index} is quarantined.`);
                refresh();
            },
        });
    }

    const show = list(
        cards,
        (gpu) => gpu.uuid ?? `index ${gpu.index}`,
        () => card(quarantine),
    );
    return {
        title: "GPUs",
        node: el(
            "div",
            {},
            el("h1", { tabindex: -1 }, "GPUs"),
            about,
            remarks,
            el("section", { "aria-label": "GPUs" }, cards, empty),
        ),
        async read() {
            const found = await get("api/gpus", { store });
            heard(found.read_at_seconds);
            host = found.host;
            show(found.gpus);
            shown(empty, found.gpus.length === 0);
            const waiting = found.waiting
                ? ` · ${found.waiting} ${found.waiting === 1 ? "request waits" : "requests wait"}`
                : "";
            say(
                about,
                `${host ? `Host ${host} · ` : ""}as it was at ${clockTime(found.read_at_seconds)}${waiting}`,
            );
            if (remarks.textContent !== found.remarks.join(""))
                remarks.replaceChildren(
                    ...found.remarks.map((text) => el("p", { class: "mark note" }, text)),
                );
            return found.read_at_seconds;
        },
    };
}
