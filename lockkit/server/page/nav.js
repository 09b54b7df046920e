// The links to the views, with the number of alerts that fire.

import { get } from "./api.js";
import { attribute, el, say, shown } from "./dom.js";
import { to } from "./route.js";

const OFTEN = 15_000; // ms

/** The links: `at(page)` marks the view that is shown, and `count(store)` asks again and again for the alerts of a store. */
export function navigation(node, views) {
    const badge = el("span", { class: "badge bad", hidden: true });
    const links = Object.entries(views).map(([page, text]) => {
        const link = el("a", { href: to(page) }, text, page === "alerts" && badge);
        node.append(link);
        return { page, link };
    });
    let timer = 0;

    async function count(store) {
        clearTimeout(timer);
        if (store === null) return;
        timer = setTimeout(() => count(store), OFTEN);
        if (document.hidden) return;
        let firing;
        try {
            const { alerts } = await get("api/alerts", { store });
            firing = alerts.filter(({ state, hidden }) => state === "firing" && hidden === null).length;
        } catch {
            return; // the view itself says what is wrong, and the last number stays
        }
        shown(badge, firing > 0);
        say(badge, ` ${firing}`);
        attribute(badge, "title", `${firing} ${firing === 1 ? "alert fires" : "alerts fire"}`);
    }

    return {
        at(page) {
            for (const { page: mine, link } of links) {
                attribute(link, "href", to(mine));
                attribute(link, "aria-current", mine === page ? "page" : null);
            }
        },
        count,
    };
}
