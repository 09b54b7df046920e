// Keeps what the page shows true: hears of changes, has the page read again, and says since when it could not.

import { Problem } from "./api.js";
import { time } from "./clock.js";

const PAUSE = 1_000; // ms between two reads: holders renew all the time
const CALM = 15_000; // without news; a stream that is cut somewhere on its way may look like one without news
const DEAF = 3_000; // while there is no stream
const LATE = 20; // seconds after which what was read is old, whether or not an answer is still waited for
const FIRST_RETRY = 1_000;
const LAST_RETRY = 10_000;
const HIDDEN = 30_000; // after which a page that nobody sees stops asking

/**
 * One store, as long as the page shows it.
 *
 * The states that `tell` is told: `connecting` (nothing was read yet), `live`, `polling` (what is shown is true, but there is no stream),
 * `stale` (with `since`, in seconds since the epoch, or null if nothing was ever read, and `why`).
 */
export class Live {
    #read;
    #tell;
    #store = null;
    #source = null;
    #retry = FIRST_RETRY;
    #timers = {};
    #turn = 0; // the number of the last read
    #reading = false;
    #again = false; // whether somebody wants another read at once
    #news = false; // whether something has changed since the last read began
    #startedAt = 0;
    #asleep = false; // whether nobody sees the page
    #good = null; // when what is shown was true, in seconds since the epoch by the server's clock
    #failure = ""; // why the last read failed
    #storeFailure = null; // what the stream says of the store: { since, why }

    /**
     * @param read Reads again what the page shows, and shows it. Returns the time of which that is, if the server says so. Throws a Problem.
     * @param tell Is told the state.
     */
    constructor(read, tell) {
        this.#read = read;
        this.#tell = tell;
        document.addEventListener("visibilitychange", () => this.#seen());
    }

    /** Begin with a store, instead of the one before. */
    watch(store) {
        this.stop();
        this.#store = store;
        this.#good = null;
        this.#failure = "";
        this.#listen();
        this.refresh();
    }

    /** End: hear nothing, and read nothing. */
    stop() {
        for (const timer of Object.values(this.#timers)) clearTimeout(timer);
        this.#timers = {};
        this.#source?.close();
        this.#source = null;
        this.#storeFailure = null;
        this.#store = null;
        this.#turn += 1; // whatever is being read is not waited for: a store that does not answer takes long
        this.#reading = false;
    }

    /** Read now, or as soon as the read that goes on has ended. */
    refresh() {
        if (this.#store === null) return;
        if (this.#reading) this.#again = true;
        else this.#readNow();
    }

    async #readNow() {
        const turn = ++this.#turn;
        this.#reading = true;
        this.#again = false;
        this.#news = false;
        this.#startedAt = performance.now();
        clearTimeout(this.#timers.read);
        let failure = "";
        let good = time();
        try {
            good = (await this.#read()) ?? good;
        } catch (error) {
            failure = error.message;
            if (!(error instanceof Problem)) reportError(error);
        }
        if (turn !== this.#turn) return; // the page has turned to another store meanwhile
        this.#reading = false;
        this.#failure = failure;
        if (failure === "") this.#good = good;
        if (this.#again) this.#readNow();
        else if (this.#news) this.#plan(this.#pause());
        else this.#plan(this.#hears && !failure ? CALM : DEAF);
        this.say();
    }

    get #hears() {
        return this.#source?.readyState === EventSource.OPEN;
    }

    /** How long to wait before the next read. */
    #pause() {
        return Math.max(PAUSE - (performance.now() - this.#startedAt), 100);
    }

    #plan(delay) {
        clearTimeout(this.#timers.read);
        if (this.#asleep) return;
        this.#timers.read = setTimeout(() => this.refresh(), delay);
    }

    #listen() {
        const store = this.#store;
        const source = new EventSource(`api/events?${new URLSearchParams({ store })}`);
        this.#source = source;
        source.addEventListener("open", () => {
            this.#retry = FIRST_RETRY;
            this.say();
        });
        source.addEventListener("change", (event) => {
            const change = JSON.parse(event.data);
            this.#storeFailure = change.stale
                ? { since: change.stale_since_seconds, why: change.error }
                : null;
            this.say();
            this.#news = true;
            if (!this.#reading) this.#plan(this.#pause());
        });
        // A browser comes back by itself only from some failures, so none is left to it.
        source.addEventListener("error", () => {
            if (this.#source !== source) return;
            source.close();
            this.#timers.listen = setTimeout(() => this.#listen(), this.#retry);
            this.#retry = Math.min(this.#retry * 2, LAST_RETRY);
            this.#storeFailure = null;
            this.refresh();
        });
    }

    /** Tell the state, which also changes as time passes: an answer may not come. */
    say() {
        if (this.#store === null) return;
        const late = this.#good !== null && time() - this.#good > LATE ? "the answer is late" : "";
        if (this.#storeFailure || this.#failure || late) {
            const { since = this.#good, why = this.#failure || late } = this.#storeFailure ?? {};
            this.#tell({ state: "stale", since, why });
        } else if (this.#good === null) this.#tell({ state: "connecting" });
        else this.#tell({ state: this.#hears ? "live" : "polling" });
    }

    #seen() {
        clearTimeout(this.#timers.hidden);
        if (this.#store === null) return;
        if (document.hidden) {
            this.#timers.hidden = setTimeout(() => {
                this.#asleep = true;
                clearTimeout(this.#timers.read);
                clearTimeout(this.#timers.listen);
                this.#source?.close();
                this.#source = null;
            }, HIDDEN);
        } else {
            this.#asleep = false;
            if (this.#source === null) this.#listen();
            this.refresh();
        }
    }
}
