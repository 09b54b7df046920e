// Where the visitor is: the part of the address after "#", such as #/lock?name=backup&store=redis-1f2e3d4c. It can be sent to others.

/** The place in the address. */
export function here() {
    const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
    return { page: path || "locks", query: new URLSearchParams(query) };
}

/** The address of a page. Values that are null or empty are left out. The store stays the one that is shown. */
export function to(page, values = {}) {
    const query = new URLSearchParams();
    const store = here().query.get("store");
    for (const [name, value] of Object.entries({ store, ...values })) {
        if (value !== null && value !== undefined && value !== "") query.set(name, value);
    }
    return `#/${page}${query.size ? `?${query}` : ""}`;
}

/** Change some values of this place. `replace` leaves no step to go back to, for a filter that is being typed. */
export function change(values, { replace = false } = {}) {
    const { page, query } = here();
    const address = to(page, { ...Object.fromEntries(query), ...values });
    if (address === location.hash) return;
    if (replace) {
        history.replaceState(null, "", address);
        dispatchEvent(new HashChangeEvent("hashchange"));
    } else location.hash = address;
}

let list = ""; // where the list of locks was looked at last

/** Keep this place, if it is the list of locks, so that the way back leads to the same filter and page. */
export function remember() {
    if (here().page === "locks") list = location.hash;
}

/** The way back to the list of locks. */
export function back() {
    const store = here().query.get("store");
    return new URLSearchParams(list.split("?")[1]).get("store") === store && list !== "" ? list : to("locks");
}
