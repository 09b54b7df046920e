// The time, as the server has it, and times and durations as people read them.

let ahead = null; // seconds by which the server's clock is ahead of this browser's, as far as is known

/** Learn from an answer that the server's clock was at least there. */
export function heard(seconds) {
    if (typeof seconds !== "number") return;
    const now = seconds - Date.now() / 1000;
    // The state was read a little before it arrived, so the largest difference is the best; another by far is a clock that was set.
    if (ahead === null || now > ahead || now < ahead - 60) ahead = now;
}

/** The seconds since the epoch, by the server's clock. */
export function time() {
    return Date.now() / 1000 + (ahead ?? 0);
}

let stopped = null; // the time at which what is shown was true last, while nothing newer can be read

/** Let ages and what is left of a ttl stay as they were at a time, because nothing is known of later; or, with null, let them go on. */
export function stopAt(seconds) {
    stopped = seconds;
}

/** The time up to which something is known of the store, from which ages are counted. */
export function now() {
    return stopped ?? time();
}

/** A duration: 0.3 s, 12 s, 3 min, 2 h 5 min, 4 d 1 h, as the commands show it, but in whole seconds. */
export function duration(seconds) {
    const whole = Math.max(Math.round(seconds), 0);
    if (whole < 120) return `${whole} s`;
    if (whole < 7200) return `${Math.floor(whole / 60)} min`;
    const [large, small, units] = whole < 172800 ? [3600, 60, ["h", "min"]] : [86400, 3600, ["d", "h"]];
    const rest = Math.floor((whole % large) / small);
    return `${Math.floor(whole / large)} ${units[0]}${rest ? ` ${rest} ${units[1]}` : ""}`;
}

/** How long ago something was. */
export function age(since) {
    return duration(now() - since);
}

const MINUTE = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const MINUTES = new Intl.DateTimeFormat(undefined, MINUTE);
const TIME = new Intl.DateTimeFormat(undefined, { ...MINUTE, second: "2-digit", timeZoneName: "short" });
const DATE = new Intl.DateTimeFormat("sv-SE", { year: "numeric", month: "2-digit", day: "2-digit" });

/** The hour and minute in this browser's time zone, for the marks of an axis: 14:03. */
export function minutes(seconds) {
    return MINUTES.format(new Date(seconds * 1000));
}

/** The time of day in this browser's time zone, 14:03:59 GMT+1, with the date if it is another day. */
export function clockTime(seconds) {
    const then = new Date(seconds * 1000);
    const time = TIME.format(then);
    return DATE.format(then) === DATE.format(new Date()) ? time : `${DATE.format(then)} ${time}`;
}

/** A time as the messages of alerts have it, for people in several time zones: 2025-11-27 19:00:00 UTC. */
export function utc(seconds) {
    return `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}
