// The drawing of holds along the time: a bar for each hold, in rows in which no two overlap, above an axis.

import { clockTime, duration, minutes } from "./clock.js";
import { svg } from "./dom.js";

const LANES = 12;
const LANE = 26; // pixels
const AXIS = 24;
const HUES = 6;
const LETTER = 7.5; // about
const BETWEEN = 90; // pixels between two marks of the axis, at least
const STEPS = [60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400]; // seconds between two marks
const HALF_A_DAY = 43200;
const ENDS = {
    held: "still held",
    released: "released",
    lost: "lost",
    max_hold: "ended by max_hold",
    collected: "dropped without a release",
    abandoned: "released without an answer",
    absent: "gone at its release",
    unknown: "its process has ended",
};
const BAD = ["lost", "abandoned", "absent", "unknown"];

/** How a hold ended, in words. */
export function endWords({ end, reason }) {
    return [ENDS[end] ?? end, reason].filter(Boolean).join(": ");
}

/** A colour for a user, the same one each time. */
function hue(user) {
    let sum = 0;
    for (const letter of user) sum = (sum * 31 + letter.codePointAt(0)) % 1_000_003;
    return sum % HUES;
}

/** The holds, each with its row. They must be in the order of their beginnings. */
function placed(holds) {
    const ends = [];
    return holds.map((hold) => {
        const free = ends.findIndex((end) => end <= hold.from);
        const lane = free < 0 ? ends.length : free;
        ends[lane] = hold.until;
        return { ...hold, lane };
    });
}

/** The marks of the axis: round times of this browser's time zone. */
function axis(from, until, width, depth, x) {
    const step = STEPS.find((one) => ((until - from) / one) * BETWEEN <= width) ?? STEPS.at(-1);
    const zone = new Date(from * 1000).getTimezoneOffset() * 60;
    const text = (at) =>
        step < HALF_A_DAY ? minutes(at) : new Date(at * 1000).toLocaleDateString("sv-SE").slice(5);
    const marks = [];
    for (let at = Math.ceil((from - zone) / step) * step + zone; at < until; at += step) {
        const place = x(at);
        marks.push(svg("line", { x1: place, x2: place, y1: 0, y2: depth, class: "tick" }));
        const fits = place > 18 && place < width - 18;
        if (fits) marks.push(svg("text", { x: place, y: depth + AXIS - 7, class: "when" }, text(at)));
    }
    return marks;
}

function bar(hold, x) {
    const { user, lane, end, from, until } = hold;
    const left = x(from);
    const width = Math.max(x(until) - left, 2);
    const top = lane * LANE + 3;
    const room = Math.floor((width - 10) / LETTER);
    const label = user.length > room ? `${user.slice(0, Math.max(room - 1, 0))}…` : user;
    const time = `${clockTime(from)} to ${end === "held" ? "now" : clockTime(until)} (${duration(until - from)})`;
    return svg(
        "g",
        { class: `hold hue${hue(user)}${BAD.includes(end) ? " bad" : ""}` },
        svg("title", {}, `${hold.who}, ${time}, ${endWords(hold)}`),
        svg("rect", { x: left, y: top, width, height: LANE - 6, rx: 3 }),
        room >= 3 && svg("text", { x: left + 6, y: top + LANE - 12 }, label),
    );
}

/**
 * Draw holds.
 *
 * @param holds The holds, by their beginnings.
 * @param from The time at the left, in seconds since the epoch.
 * @param until The time at the right.
 * @param width Pixels.
 * @param about The id of the element that says in words what is drawn.
 * @returns The drawing, and how many holds it has no room for.
 */
export function drawing(holds, from, until, width, about) {
    const all = placed(holds);
    const rows = Math.min(Math.max(...all.map(({ lane }) => lane + 1), 1), LANES);
    const height = rows * LANE + AXIS;
    const x = (at) => ((Math.min(Math.max(at, from), until) - from) / (until - from)) * width;
    const bars = all.filter(({ lane }) => lane < LANES).map((hold) => bar(hold, x));
    const size = { viewBox: `0 0 ${width} ${height}`, width, height };
    const node = svg(
        "svg",
        { ...size, role: "img", "aria-labelledby": about },
        axis(from, until, width, rows * LANE, x),
        bars,
    );
    return { node, missing: all.length - bars.length };
}
