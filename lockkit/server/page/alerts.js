// Alerts: what is wrong, since when, who deals with it, and what is not told for a time.

import { get, post } from "./api.js";
import { shownName } from "./claims.js";
import { age, utc } from "./clock.js";
import { confirm, field, notice } from "./dialogs.js";
import { attribute, el, list, say, shown } from "./dom.js";
import { here, to } from "./route.js";
import { may } from "./session.js";

const TIMES = { 3600: "an hour", 14400: "4 hours", 86400: "a day", 604800: "a week" };
const STATES = { pending: "not long enough yet", firing: "firing", resolved: "over" };

function alertPart({ acknowledge, takeBack, silence }) {
    const severity = el("span", { class: "pill severity" });
    const rule = el("h2", { class: "code" });
    const state = el("span", { class: "badge" });
    const text = el("p", {});
    const since = el("p", { class: "soft" });
    const lock = el("a", { class: "name" });
    const command = el("code", { class: "command" });
    const ack = el(
        "button",
        { type: "button", class: "small", onclick: () => acknowledge(seen) },
        "Acknowledge…",
    );
    const back = el(
        "button",
        { type: "button", class: "small", onclick: () => takeBack(seen) },
        "Nobody deals with it…",
    );
    const quiet = el("button", { type: "button", class: "small", onclick: () => silence(seen) }, "Silence…");
    let seen = null;
    const node = el(
        "article",
        { class: "card alert", tabindex: -1 },
        el("div", { class: "heading" }, severity, rule, state),
        text,
        lock,
        since,
        command,
        el("div", { class: "acts" }, ack, back, quiet),
    );
    return {
        node,
        show(alert) {
            seen = alert;
            say(severity, alert.severity);
            attribute(
                severity,
                "data-kind",
                alert.severity === "P0" ? "bad" : alert.severity === "P1" ? "warn" : "note",
            );
            attribute(
                node,
                "data-kind",
                alert.state === "resolved" ? "healthy" : alert.severity === "P0" ? "unhealthy" : "warning",
            );
            say(rule, alert.rule);
            say(
                state,
                [STATES[alert.state], alert.hidden, alert.told ? "" : "not told yet"]
                    .filter(Boolean)
                    .join(", "),
            );
            say(text, alert.text);
            const begun = `since ${utc(alert.since_seconds)} (${age(alert.since_seconds)})`;
            const told = [`alert ${alert.fingerprint}, ${begun}`];
            if (alert.times > 1) told.push(`seen ${alert.times} times`);
            if (alert.acknowledged_by) told.push(`${alert.acknowledged_by} deals with it`);
            if (alert.silenced_by.length) told.push(`silenced (${alert.silenced_by.join(", ")})`);
            say(since, told.join(" · "));
            shown(lock, Boolean(alert.labels.lock));
            say(lock, shownName(alert.labels.lock ?? ""));
            attribute(lock, "href", to("lock", { name: alert.labels.lock }));
            shown(command, alert.command !== null);
            say(command, alert.command ?? "");
            const open = may("operate") && alert.state !== "resolved";
            shown(ack, open && !alert.acknowledged_by);
            shown(back, open && Boolean(alert.acknowledged_by));
            shown(quiet, open && alert.hidden !== "silenced");
        },
    };
}

function silencePart({ end }) {
    const words = el("span", {});
    const stop = el("button", { type: "button", class: "small", onclick: () => end(seen) }, "End…");
    let seen = null;
    return {
        node: el("li", {}, words, " ", stop),
        show(one) {
            seen = one;
            shown(stop, may("operate"));
            const what = one.fingerprint ? `alert ${one.fingerprint}` : `rule ${one.rule}`;
            const labels = Object.entries(one.labels)
                .map(([name, value]) => `${name}=${value}`)
                .join(", ");
            const which = labels ? `${what} (${labels})` : what;
            const why = one.comment ? `: ${one.comment}` : "";
            say(words, `${which}, until ${utc(one.ends_seconds)}, by ${one.author}${why}`);
        },
    };
}

/** The view of alerts. */
export function alertsView({ store, refresh }) {
    const cards = el("div", { class: "alerts" });
    const empty = el("p", { class: "empty", hidden: true }, "Nothing is wrong.");
    const silences = el("ul", { class: "plain" });
    const silenced = el(
        "section",
        { "aria-label": "Silences", hidden: true },
        el("h2", {}, "Silences"),
        silences,
    );
    const over = el("p", { class: "empty", hidden: true });
    let seen = null;
    let met = ""; // the alert to which the address led, once the visitor has been led there

    const send = (path, body, words) => async () => {
        await post(path, { ...body(), store });
        notice(words);
        refresh();
    };
    const about = (alert, what) => `api/alerts/${encodeURIComponent(alert.fingerprint)}/${what}`;
    function acknowledge(alert) {
        const comment = field("Comment (may be empty)");
        confirm({
            title: `Acknowledge ${alert.rule}?`,
            sentences: [alert.text, "Your name stands by the alert, and it is not escalated any more."],
            fields: [comment.node],
            button: ["Acknowledge", "main"],
            send: send(
                about(alert, "ack"),
                () => ({ comment: comment.input.value }),
                "The alert is acknowledged.",
            ),
        });
    }
    function takeBack(alert) {
        confirm({
            title: `Does nobody deal with ${alert.rule} any more?`,
            sentences: [alert.text, `${alert.acknowledged_by} dealt with it. It is repeated and escalated again.`],
            fields: [],
            button: ["Take it back", "main"],
            send: send(about(alert, "ack"), () => ({ undo: true }), "Nobody deals with the alert any more."),
        });
    }
    function end(one) {
        confirm({
            title: "End this silence?",
            sentences: [`${one.author} made it. Alerts that still fire are told.`],
            fields: [],
            button: ["End it", "main"],
            send: send(`api/silences/${encodeURIComponent(one.id)}/end`, () => ({}), "The silence has ended."),
        });
    }
    function silence(alert) {
        const comment = field("Comment (may be empty)");
        const time = el(
            "select",
            {},
            Object.entries(TIMES).map(([seconds, text]) => el("option", { value: seconds }, text)),
        );
        confirm({
            title: `Silence ${alert.rule}?`,
            sentences: [alert.text, "Nobody is told of this alert for the time. It stays on this page."],
            fields: [el("label", { class: "field" }, "For", time), comment.node],
            button: ["Silence", "main"],
            send: send(
                about(alert, "silence"),
                () => ({ seconds: Number(time.value), comment: comment.input.value }),
                "The alert is silenced.",
            ),
        });
    }

    const showAlerts = list(
        cards,
        (alert) => alert.fingerprint,
        () => alertPart({ acknowledge, takeBack, silence }),
    );
    const showSilences = list(
        silences,
        (one) => one.id,
        () => silencePart({ end }),
    );
    function show() {
        if (seen === null) return;
        showAlerts(seen.alerts);
        shown(empty, seen.alerts.length === 0);
        showSilences(seen.silences);
        shown(silenced, seen.silences.length > 0);
        const wanted = here().query.get("alert") ?? "";
        const place = seen.alerts.findIndex(({ fingerprint }) => fingerprint === wanted);
        say(over, `The alert ${wanted} is over.`);
        shown(over, wanted !== "" && place < 0);
        [...cards.children].forEach((card, index) => attribute(card, "aria-current", index === place && "true"));
        if (wanted !== met) cards.children[place]?.focus();
        met = wanted;
    }

    return {
        title: "Alerts",
        node: el(
            "div",
            {},
            el("h1", { tabindex: -1 }, "Alerts"),
            over,
            el("section", { "aria-label": "Alerts" }, cards, empty),
            silenced,
        ),
        async read() {
            seen = await get("api/alerts", { store });
            show();
        },
        tick: show,
    };
}
