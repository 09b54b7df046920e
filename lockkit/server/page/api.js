// Questions to the server. Every address is relative to the page, so the page works behind any prefix.

const PATIENCE = 25_000; // ms; the server itself gives up after 20 s

/** An answer that is an error: what happened, and what to do. `status` 0: the server did not answer. */
export class Problem extends Error {
    constructor(status, document) {
        super(document.message ?? `the server answered ${status}`);
        this.status = status;
        this.kind = document.error ?? "";
        this.hint = document.hint ?? "";
        this.holder = document.holder ?? null;
    }
}

/** Ask. Parameters that are null or empty are left out. */
export function get(path, parameters = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
        if (value !== null && value !== undefined && value !== "") query.set(name, value);
    }
    return ask(query.size ? `${path}?${query}` : path, { headers: { Accept: "application/json" } });
}

/** Change something. */
export function post(path, body) {
    const given = Object.entries(body).filter(([, value]) => value !== null && value !== undefined);
    return ask(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(Object.fromEntries(given)),
    });
}

async function ask(address, options) {
    let answer;
    let text;
    try {
        answer = await fetch(address, {
            ...options,
            cache: "no-store",
            credentials: "same-origin",
            signal: AbortSignal.timeout(PATIENCE),
        });
        text = await answer.text();
    } catch {
        throw new Problem(0, { error: "no_answer", message: "the server does not answer" });
    }
    let document;
    try {
        document = JSON.parse(text);
    } catch {
        throw new Problem(answer.status, {
            message: `the server answered ${answer.status} without a document`,
        });
    }
    // The health of an unhealthy store has the status 503, and is the answer all the same.
    if (answer.ok || !String(document.schema).startsWith("lockkit.problem/")) return document;
    throw new Problem(answer.status, document);
}
