// @ts-check
/** The grid of results: tiles, paging, and what is said about them. */

import { byId, icon, make } from "./dom.js";
import * as format from "./format.js";
import * as notices from "./notices.js";
import { thumbnail } from "./pictures.js";
import { address, emptyState } from "./state.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {import("./search.js").Search} Search
 * @typedef {import("./api.js").Hit} Hit
 *
 * @typedef {object} Actions
 * @property {(state: State) => void} go
 * @property {() => void} again look at the whole index anew
 * @property {() => void} choose an image
 * @property {(search: Search) => void} loaded told after each page
 * @property {(share: number | null) => void} sent how much of an upload is done; null: all
 */

export class Results {
  /** @type {State} */
  #state = emptyState();
  /** @type {Search | null} */
  #search = null;
  #stop = new AbortController();
  #loading = false;
  #grid = byId("grid");
  #status = byId("status");
  #notice = byId("notice");
  #title = byId("results-title");
  /** @type {HTMLButtonElement} */
  #more = byId("more");
  #actions;

  /** @param {Actions} actions */
  constructor(actions) {
    this.#actions = actions;
    this.#more.addEventListener("click", () => this.#next());
    new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && this.#next(),
      { rootMargin: "400px" },
    ).observe(this.#more);
  }

  /** @returns {string[]} the keys shown, in their order */
  get keys() {
    return this.#search?.hits.map((hit) => hit.key) ?? [];
  }

  /** @param {string} key @returns {Hit | null} */
  hit(key) {
    return this.#search?.hits.find((hit) => hit.key === key) ?? null;
  }

  /**
   * Show a search, with at least so many results where it has them.
   * @param {State} state
   * @param {Search} search
   * @param {number} wanted
   */
  async show(state, search, wanted) {
    this.stop();
    this.#state = state;
    this.#search = search;
    this.#notice.replaceChildren();
    if (search.hits.length) {
      this.#clear();
      this.#add(search.hits);
    }
    await this.#load(search, Math.max(wanted, 1));
  }

  /** Give up what is still being asked. */
  stop() {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#loading = false;
    this.#actions.sent(null);
  }

  /** Show nothing, but why. @param {HTMLElement} why */
  tell(why) {
    this.stop();
    this.#search = null;
    this.#clear();
    this.#say("");
    this.#title.hidden = true;
    this.#notice.replaceChildren(why);
  }

  #next() {
    const search = this.#search;
    if (search && !search.done && !this.#loading && !this.#more.hidden) {
      this.#load(search, search.hits.length + 1);
    }
  }

  /** @param {Search} search @param {number} wanted */
  async #load(search, wanted) {
    const { signal } = this.#stop;
    const first = search.hits.length === 0;
    this.#busy(true, first);
    this.#notice.replaceChildren();
    try {
      while (!search.done && (search.hits.length < wanted || !search.hits.length)) {
        const before = search.hits.length;
        const sent = (/** @type {number} */ share) => this.#actions.sent(share);
        const hits = await search.more({ signal, sent });
        if (signal.aborted) return;
        if (before === 0) this.#clear();
        this.#add(hits);
      }
      this.#settled(search);
    } catch (error) {
      if (!signal.aborted) this.#failed(error, first);
    } finally {
      if (!signal.aborted) {
        this.#busy(false, first);
        this.#actions.sent(null);
      }
    }
  }

  /** @param {Search} search */
  #settled(search) {
    this.#more.hidden = search.done;
    this.#title.hidden = search.query !== null || search.hits.length === 0;
    this.#title.textContent = "Changed last";
    this.#say(told(search));
    this.#actions.loaded(search);
    if (search.hits.length === 0) {
      this.#clear();
      this.#notice.replaceChildren(
        notices.nothingFound(this.#state, search, (state) => this.#actions.go(state)),
      );
    }
  }

  /** @param {unknown} error @param {boolean} first whether there are no results yet */
  #failed(error, first) {
    if (first) this.#clear();
    this.#say("");
    this.#title.hidden = true;
    const byImage = this.#state.query?.kind === "image";
    const again = () => (first ? this.#actions.go(this.#state) : this.#next());
    this.#notice.replaceChildren(
      notices.failure(error, again, byImage ? this.#actions.choose : undefined),
    );
  }

  /** @param {boolean} busy @param {boolean} first */
  #busy(busy, first) {
    this.#loading = busy;
    this.#grid.toggleAttribute("data-stale", busy && first);
    this.#grid.setAttribute("aria-busy", String(busy));
    this.#more.disabled = busy;
    this.#more.textContent = busy ? "Loading…" : "Show more";
    if (busy && first) this.#say("Searching…");
  }

  #clear() {
    this.#grid.replaceChildren();
    this.#grid.hidden = true;
    this.#more.hidden = true;
  }

  /** @param {Hit[]} hits */
  #add(hits) {
    this.#grid.append(...hits.map((hit) => this.#tile(hit)));
    this.#grid.hidden = this.#grid.childElementCount === 0;
  }

  /** @param {Hit} hit @returns {HTMLLIElement} */
  #tile(hit) {
    const details = { ...this.#state, item: hit.key };
    const similar = moreLike(this.#state, hit.key);
    const known = !Number.isNaN(hit.score);
    return make(
      "li",
      { class: "tile" },
      make(
        "a",
        { class: "tile-main", href: address(details), "data-item": hit.key },
        thumbnail(hit.key),
        make(
          "span",
          { class: "caption" },
          make("span", { class: "labels" }, hit.labels.join(", ") || format.nameOf(hit.key)),
          known
            ? make(
                "span",
                { class: "score" },
                make("span", { class: "visually-hidden" }, " score "),
                format.score(hit.score),
              )
            : null,
        ),
      ),
      make(
        "a",
        {
          class: "similar",
          href: address(similar),
          "data-like": hit.key,
          "aria-label": `More like ${hit.key}`,
          title: "More like this",
        },
        icon("similar"),
      ),
    );
  }

  /** @param {string} text */
  #say(text) {
    if (this.#status.textContent !== text) this.#status.textContent = text;
  }
}

/**
 * The search for what is like an item, under the filters of now.
 * @param {State} state
 * @param {string} key
 * @returns {State}
 */
export function moreLike(state, key) {
  return { ...state, view: "search", query: { kind: "key", key }, minScore: null, item: null };
}

/** @param {Search} search */
function told(search) {
  const shown = search.hits.length;
  if (shown === 0) return "No results.";
  if (search.query === null) return format.things(shown, "item");
  const best = `best score ${format.score(search.hits[0].score)}`;
  const end = search.capped ? "; the service pages no further" : "";
  const all = search.done && !search.capped ? "" : " so far";
  const of = search.where ? "" : ` of ${format.things(search.total, "item")}`;
  return `${format.things(shown, "result")}${all}${of}, ${best}${end}`;
}
