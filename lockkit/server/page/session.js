// Who the visitor is, and what the server lets this visitor do. The token itself is kept nowhere: it is exchanged for a cookie that scripts cannot read.

import { get, post, Problem } from "./api.js";
import { el, say, shown } from "./dom.js";

const SCOPES = ["view", "operate", "admin"];

/** What the server says of the visitor and of its stores. `visitor` null: the server has no tokens. */
export const session = { stores: [], visitor: null, scope: "view" };

/** Ask the server. Throws a Problem; its status is 401 if the visitor has to sign in first. */
export async function load() {
    const { stores, visitor, scope } = await get("api/stores");
    Object.assign(session, { stores, visitor, scope });
}

/** Whether the visitor may do what needs a scope. Only hides buttons: the server decides. */
export function may(scope) {
    return SCOPES.indexOf(session.scope) >= SCOPES.indexOf(scope);
}

/** The form to sign in. `done` is called when the visitor has signed in. */
export function signInForm(done) {
    const wrong = el("p", { class: "wrong", role: "alert", hidden: true });
    const token = el("input", {
        id: "token",
        name: "token",
        type: "password",
        autocomplete: "current-password",
        required: true,
        maxlength: 512,
        spellcheck: "false",
        "aria-describedby": "token-help",
    });
    const button = el("button", { type: "submit", class: "main" }, "Sign in");
    const submit = async (event) => {
        event.preventDefault();
        button.disabled = true;
        shown(wrong, false);
        try {
            await post("api/session", { token: token.value.trim() });
            token.value = "";
            await done();
        } catch (error) {
            if (!(error instanceof Problem)) throw error;
            say(
                wrong,
                error.kind === "wrong_token"
                    ? "This token is not known. Look at its line in the token file."
                    : sentence(error),
            );
            shown(wrong, true);
            token.select();
        } finally {
            button.disabled = false;
        }
    };
    return el(
        "form",
        { class: "sign-in", onsubmit: submit, "aria-label": "Sign in" },
        el("h1", { tabindex: -1 }, "Sign in"),
        el("p", {}, "This server shows its locks only to those who have a token."),
        el("label", { for: "token" }, "Token"),
        token,
        el(
            "p",
            { id: "token-help", class: "soft" },
            "The last word of your line in the server’s token file. You stay signed in for 12 hours.",
        ),
        wrong,
        button,
    );
}

/** Sign out. */
export function signOut() {
    return post("api/session/end", {});
}

/** A problem as sentences: what happened, and what to do. */
export function sentence(problem) {
    const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
    const ended = (text) => (/[.?!]$/.test(text) ? text : `${text}.`);
    return [problem.message, problem.hint].filter(Boolean).map(capital).map(ended).join(" ");
}
