// @ts-check
/** The browser's history: one entry for each state shown, and where each was scrolled to. */

import { address, parse } from "./state.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {{ top: number, loaded: number }} Place how far an entry was scrolled, and read
 */

const STORED = "spherequant places";
const KEPT = 50;

export class Navigation {
  /** @type {State} */
  state = parse(location.search);
  /** @type {Map<string, Place>} */
  #places = new Map();
  #entry = "";
  #show;

  /** @param {(state: State, place: Place | null) => void} show place: null for what is new */
  constructor(show) {
    this.#show = show;
  }

  /** Show what the address names, now and whenever the user goes back or forward. */
  start() {
    history.scrollRestoration = "manual";
    this.#places = new Map(stored());
    this.#enter();
    addEventListener("popstate", () => this.#enter());
    addEventListener("scroll", () => this.remember({ top: scrollY }), { passive: true });
    addEventListener("pagehide", () => {
      const last = [...this.#places].slice(-KEPT);
      sessionStorage.setItem(STORED, JSON.stringify(last));
    });
  }

  /**
   * Show another state, as a new entry of the history or in place of this one.
   * @param {State} state
   * @param {{ replace?: boolean, inside?: boolean }} [how] inside: `leave` comes back here
   */
  go(state, { replace = false, inside = false } = {}) {
    this.state = state;
    if (replace) {
      history.replaceState(history.state, "", address(state));
    } else {
      this.#entry = fresh();
      history.pushState({ entry: this.#entry, inside }, "", address(state));
    }
    this.#show(state, null);
  }

  /**
   * Go back to where this entry was opened from, or to a state where it was opened from nowhere.
   * @param {State} state
   */
  leave(state) {
    if (history.state?.inside) history.back();
    else this.go(state, { replace: true });
  }

  /**
   * Note where this entry is.
   * @param {Partial<Place>} place
   */
  remember(place) {
    const before = this.#places.get(this.#entry) ?? { top: 0, loaded: 0 };
    this.#places.delete(this.#entry);
    this.#places.set(this.#entry, { ...before, ...place });
  }

  #enter() {
    this.state = parse(location.search);
    this.#entry = history.state?.entry ?? fresh();
    if (!history.state?.entry) history.replaceState({ entry: this.#entry }, "");
    this.#show(this.state, this.#places.get(this.#entry) ?? { top: 0, loaded: 0 });
  }
}

let made = 0;

/** A name that no other entry of this tab has, reloads included. */
function fresh() {
  made += 1;
  return `${performance.timeOrigin}.${made}`;
}

/** @returns {[string, Place][]} */
function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(STORED) ?? "[]");
  } catch {
    return [];
  }
}
