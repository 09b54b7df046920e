// A field whose words are part of the address, as soon as somebody stops typing.

import { el } from "./dom.js";
import { change, here } from "./route.js";

const TYPING = 250; // ms after the last key

/** The field: its `node` and `moved()`. `name` is that of the words in the address. */
export function searchPart(name, label, placeholder) {
    const input = el("input", { id: name, type: "search", placeholder, spellcheck: "false", maxlength: 512 });
    const moved = () => {
        if (document.activeElement !== input) input.value = here().query.get(name) ?? "";
    };
    let typing = 0;
    input.addEventListener("input", () => {
        clearTimeout(typing);
        typing = setTimeout(
            () => change({ [name]: input.value.trim(), offset: null }, { replace: true }),
            TYPING,
        );
    });
    moved();
    return { node: el("label", { for: name }, label, input), moved };
}
