// The page: its header, and the view that the address names.

import { alertsView } from "./alerts.js";
import { Problem } from "./api.js";
import { clockTime, stopAt } from "./clock.js";
import { notice } from "./dialogs.js";
import { attribute, el, list, say, shown } from "./dom.js";
import { failuresView } from "./failures.js";
import { gpusView } from "./gpus.js";
import { historyView } from "./history.js";
import { Live } from "./live.js";
import { lockView } from "./lock.js";
import { locksView } from "./locks.js";
import { navigation } from "./nav.js";
import { change, here, remember, to } from "./route.js";
import { load, sentence, session, signInForm, signOut } from "./session.js";

const VIEWS = {
    locks: locksView,
    lock: lockView,
    gpus: gpusView,
    alerts: alertsView,
    failures: failuresView,
    history: historyView,
};
const NAMES = { locks: "Locks", gpus: "GPUs", alerts: "Alerts", failures: "Failures", history: "History" };
const RETRY = 3_000; // ms

const $ = (id) => document.getElementById(id);
const main = $("main");

let view = null; // what is shown: its node, its title, read(), tick()
let shownKey = ""; // the page, store and lock that it is about
const nav = navigation($("nav"), NAMES);
const live = new Live(() => view.read(), tell);

// -- where ----------------------------------------------------------------------------------------------------

function store() {
    const wanted = here().query.get("store");
    return session.stores.find((one) => one.id === wanted) ?? session.stores[0];
}

/** The page, store and lock that the address names. */
function keyOf() {
    const { page, query } = here();
    return JSON.stringify([page in VIEWS ? page : "locks", store().id, query.get("name")]);
}

/** Show what the address names. */
function go() {
    if (session.stores.length === 0) return; // not signed in yet
    const key = keyOf();
    const [name] = JSON.parse(key);
    remember();
    nav.at(name === "lock" ? "locks" : name);
    attribute($("brand"), "href", to("locks"));
    if (key === shownKey) {
        view.moved?.();
        live.refresh();
        return;
    }
    const first = shownKey === "";
    const sameStore = shownKey !== "" && JSON.parse(shownKey)[1] === store().id;
    shownKey = key;
    view = guarded(VIEWS[name]({ store: store().id, refresh: () => live.refresh() }));
    main.replaceChildren(view.node);
    document.title = `${view.title} · lockkit`;
    if (!first) {
        scrollTo(0, 0);
        (main.querySelector("h1") ?? main).focus({ preventScroll: true });
    }
    if (sameStore) live.refresh();
    else {
        header();
        nav.count(store().id);
        live.watch(store().id);
    }
}

/** A view that leads to the form when the visitor must sign in, and asks anew who the visitor is when the server is back. */
function guarded(made) {
    let failed = false;
    return {
        ...made,
        read: async () => {
            try {
                if (failed) {
                    await load();
                    header();
                    if (keyOf() !== shownKey) return go(); // the server has other stores by now
                }
                const at = await made.read();
                failed = false;
                return at;
            } catch (error) {
                failed = true;
                if (!(error instanceof Problem) || error.status !== 401) throw error;
                signIn();
            }
        },
    };
}

// -- who ------------------------------------------------------------------------------------------------------

function signIn() {
    live.stop();
    nav.count(null);
    session.stores = [];
    shownKey = "";
    view = null;
    header();
    say($("live"), "");
    $("state").dataset.state = "";
    document.title = "Sign in · lockkit";
    main.replaceChildren(signInForm(start));
    $("token").focus();
}

async function leave() {
    try {
        await signOut();
    } catch (error) {
        if (!(error instanceof Problem)) throw error;
        notice(sentence(error));
        return;
    }
    await start();
}

/** The parts of the header that depend on the visitor. */
function header() {
    const known = session.stores.length > 0;
    shown($("nav"), known);
    shown($("store-label"), session.stores.length > 1);
    showStores(session.stores);
    if (known) $("store").value = store().id;
    say($("where"), known ? where(store()) : "");
    document.body.dataset.scope = known ? session.scope : "";
    const about = $("visitor");
    if (!known) about.replaceChildren();
    else if (session.visitor === null) {
        const why =
            "This server has no tokens, so everybody who reaches it may look and nobody may change anything. See: lockkit serve --help";
        about.replaceChildren(el("span", { class: "badge", title: why }, "View only"));
    } else {
        about.replaceChildren(
            el(
                "span",
                { title: `scope ${session.scope}` },
                `${session.visitor} `,
                el("span", { class: "badge" }, session.scope),
            ),
            el("button", { type: "button", class: "quiet", onclick: leave }, "Sign out"),
        );
    }
}

const showStores = list(
    $("store"),
    (one) => one.id,
    (one) => {
        const node = el("option", { value: one.id });
        return { node, show: (each) => say(node, where(each)) };
    },
);

function where({ store: { url, namespace } }) {
    return `${url} · namespace ${namespace}`;
}

// -- how fresh ------------------------------------------------------------------------------------------------

const STATES = { connecting: "Reading …", live: "Live", polling: "No live updates; asking every 3 s" };

function tell({ state, since, why }) {
    const line = $("live");
    $("state").dataset.state = state;
    stopAt(since ?? null);
    const told = why ? `: ${why}` : "";
    if (state !== "stale") say(line, STATES[state]);
    else
        say(
            line,
            since
                ? `Stale since ${clockTime(since)}${told}. Trying again.`
                : `Nothing could be read yet${told}. Trying again.`,
        );
}

// -- start ----------------------------------------------------------------------------------------------------

async function start() {
    try {
        await load();
    } catch (error) {
        if (!(error instanceof Problem)) throw error;
        if (error.status === 401) signIn();
        else {
            tell({ state: "stale", since: null, why: error.message });
            setTimeout(start, RETRY);
        }
        return;
    }
    shownKey = "";
    go();
}

$("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the part after "#" is the address of a page here
    main.focus();
});
$("store").addEventListener("change", (event) =>
    change({ store: event.target.value, name: null, offset: null }),
);
addEventListener("hashchange", go);
setInterval(() => {
    if (document.hidden) return;
    live.say();
    view?.tick?.();
}, 1_000);
start();
