// Elements. A text from the server only ever becomes a text node or an attribute, so a lock may be called "<script>".

/** Make an element. Attributes that are false or null are left out; functions named onclick and so on listen. */
export function el(tag, attributes = {}, ...children) {
    return filled(document.createElement(tag), attributes, children);
}

const SVG = "http://www.w3.org/2000/svg";

/** Make an element of a drawing. */
export function svg(tag, attributes = {}, ...children) {
    return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (typeof value === "function") made.addEventListener(name.slice(2), value);
        else attribute(made, name, value);
    }
    made.append(
        ...children.flat().filter((child) => child !== null && child !== undefined && child !== false),
    );
    return made;
}

/** Set an attribute, or remove it. Unchanged ones are left alone, so that nothing is drawn or read out again. */
export function attribute(node, name, value) {
    if (value === false || value === null || value === undefined) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value === true ? "" : value)) {
        node.setAttribute(name, value === true ? "" : value);
    }
}

/** Set the text of an element. */
export function say(node, text) {
    if (node.textContent !== text) node.textContent = text;
}

/** Show an element, or hide it. */
export function shown(node, visible) {
    if (node.hidden === visible) node.hidden = !visible;
}

/**
 * Keep the children of an element in step with a list of things. A thing that stays keeps its element, and so the focus and the
 * selection in it.
 *
 * @param parent The element. It must have no other children.
 * @param key Gives a text that tells the things apart.
 * @param make Makes a part for a new thing: its `node`, and `show(thing)`, which is called with each list that has the thing.
 * @returns A function that takes the list.
 */
export function list(parent, key, make) {
    let parts = new Map();
    return (things) => {
        const focused = document.activeElement;
        const kept = new Map();
        for (const thing of things) {
            const name = key(thing);
            kept.set(name, parts.get(name) ?? make(thing));
            kept.get(name).show(thing);
        }
        for (const [name, part] of parts) if (!kept.has(name)) part.node.remove();
        let place = parent.firstElementChild;
        for (const { node } of kept.values()) {
            if (node === place) place = place.nextElementSibling;
            else parent.insertBefore(node, place);
        }
        parts = kept;
        // An element that is moved loses the focus.
        if (focused !== document.activeElement && focused?.isConnected)
            focused.focus({ preventScroll: true });
    };
}

/** A text that only screen readers have. */
export function unseen(text) {
    return el("span", { class: "unseen" }, text);
}
