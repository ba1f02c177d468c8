// @ts-check
/** The dialog with everything that is known of one item. */

import * as api from "./api.js";
import { button, byId, icon, make } from "./dom.js";
import * as format from "./format.js";
import { failure } from "./notices.js";
import { improve, originalAddress, thumbnail } from "./pictures.js";
import { moreLike } from "./results.js";
import { address } from "./state.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {import("./api.js").Item} Item
 *
 * @typedef {object} Surroundings
 * @property {() => void} close
 * @property {(key: string) => void} open another item in its place
 * @property {() => string[]} keys of the results around it
 * @property {(key: string) => number | null} score
 */

/** Originals up to this size are shown at once, larger ones when they are asked for. */
const SHOWN_BYTES = 12_000_000;
/** How long a browser may take to begin saving what was fetched for it. */
const KEPT_MILLISECONDS = 60_000;
/** Near duplicates shown with an item. */
const NEAR = 12;

export class Details {
  /** @type {HTMLDialogElement} */
  #dialog = byId("details");
  #stop = new AbortController();
  #around;
  #key = "";

  /** @param {Surroundings} around */
  constructor(around) {
    this.#around = around;
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault(); // Escape goes through the history, as closing does
      around.close();
    });
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) around.close(); // the backdrop
    });
    this.#dialog.addEventListener("keydown", (event) => this.#turn(event));
  }

  /** Show an item, or none. @param {State} state */
  show(state) {
    if (state.item === null) {
      this.#stop.abort();
      this.#key = "";
      if (this.#dialog.open) this.#dialog.close();
      return;
    }
    if (state.item === this.#key && this.#dialog.open) return;
    this.#key = state.item;
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#fill(state, state.item, this.#stop.signal);
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  /** The results around the item have changed. */
  refresh() {
    this.#keepingFocus(() => {
      this.#dialog.querySelector(".details-bar")?.replaceWith(this.#bar(this.#key));
    });
  }

  /**
   * Replace what is shown; the focus goes to the new button of the same name, or to Close.
   * @param {() => void} replace
   */
  #keepingFocus(replace) {
    const name = document.activeElement?.getAttribute("aria-label");
    replace();
    if (!this.#dialog.open || this.#dialog.contains(document.activeElement)) return;
    const buttons = /** @type {HTMLButtonElement[]} */ ([
      ...this.#dialog.querySelectorAll(".details-bar button"),
    ]);
    const same = buttons.find((one) => one.getAttribute("aria-label") === name && !one.disabled);
    (same ?? buttons[buttons.length - 1]).focus();
  }

  /** @param {KeyboardEvent} event */
  #turn(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    const step = steps[/** @type {keyof typeof steps} */ (event.key)];
    const next = step && this.#neighbour(step);
    if (next) {
      event.preventDefault();
      this.#around.open(next);
    }
  }

  /** @param {number} step */
  #neighbour(step) {
    const keys = this.#around.keys();
    const place = keys.indexOf(this.#key);
    return place < 0 ? undefined : keys[place + step];
  }

  /**
   * @param {State} state
   * @param {string} key
   * @param {AbortSignal} signal
   */
  async #fill(state, key, signal) {
    const frame = thumbnail(key);
    const facts = make("div", { class: "details-facts", "aria-live": "polite" });
    const near = make("div", { class: "details-near" });
    const like = make(
      "a",
      { class: "button primary", href: address(moreLike(state, key)), "data-like": key },
      "More like this",
    );
    const text = make(
      "div",
      { class: "details-text" },
      make("h2", { id: "details-title" }, format.nameOf(key)),
      make("p", { class: "buttons" }, like),
      facts,
      near,
    );
    const picture = make("div", { class: "details-picture" }, frame);
    this.#keepingFocus(() => {
      this.#dialog.replaceChildren(
        this.#bar(key),
        make("div", { class: "details-body" }, picture, text),
      );
    });
    try {
      /** @type {Item} */
      const item = await api.read("v1/items", { key }, signal);
      facts.replaceChildren(this.#facts(item), ...this.#original(item));
      this.#enlarge(item, frame);
      near.replaceChildren(...(await this.#near(state, key, signal)));
    } catch (error) {
      if (signal.aborted) return;
      facts.replaceChildren(failure(error, () => this.#fill(state, key, signal)));
    }
  }

  /** @param {string} key */
  #bar(key) {
    const turn = (/** @type {number} */ step, /** @type {string} */ name) => {
      const next = this.#neighbour(step);
      const made = button("", () => next && this.#around.open(next), "round");
      made.append(icon(step < 0 ? "back" : "next"));
      made.setAttribute("aria-label", name);
      made.disabled = !next;
      return made;
    };
    const close = button("", () => this.#around.close(), "round");
    close.append(icon("close"));
    close.setAttribute("aria-label", "Close");
    const place = this.#around.keys().indexOf(key);
    return make(
      "div",
      { class: "details-bar" },
      turn(-1, "Previous result"),
      turn(1, "Next result"),
      make("span", { class: "muted" }, place < 0 ? "" : `Result ${format.count(place + 1)}`),
      close,
    );
  }

  /** @param {Item} item */
  #facts(item) {
    const score = this.#around.score(item.key);
    /** @type {[string, string | Node | null][]} */
    const rows = [
      ["Score", score === null ? null : format.score(score)],
      ["Labels", item.labels.length ? labels(item.labels) : "none"],
      ...Object.entries(item.metadata).map(
        ([name, value]) => /** @type {[string, string]} */ ([name, format.plain(value)]),
      ),
      ["Key", item.key],
      ["Source", item.source],
      ["File", item.size === null ? null : format.bytes(item.size)],
      ["File changed", item.mtime === null ? null : format.time(item.mtime * 1000)],
      ["Indexed", format.time(item.changed)],
    ];
    const given = rows.filter(([, value]) => value !== null);
    return make(
      "dl",
      { class: "facts" },
      ...given.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
    );
  }

  /** @param {Item} item @returns {Node[]} */
  #original(item) {
    if (!offered(item)) return [];
    const href = originalAddress(item.key);
    const told = make("span", { role: "status" });
    const link = make(
      "a",
      { href, target: "_blank", rel: "noopener", class: "original" },
      "Open the original",
    );
    if (api.apiKey() === null) return [make("p", {}, link)];
    // A link cannot send the API key: what it leads to is fetched here, and then saved.
    link.textContent = "Save the original";
    link.addEventListener("click", async (event) => {
      event.preventDefault();
      try {
        const url = URL.createObjectURL(await api.readBlob(href));
        make("a", { href: url, download: format.nameOf(item.key) }).click();
        setTimeout(() => URL.revokeObjectURL(url), KEPT_MILLISECONDS);
      } catch (error) {
        told.textContent = error instanceof api.Problem ? ` ${error.detail}` : "";
      }
    });
    return [make("p", {}, link, told)];
  }

  /** @param {Item} item @param {HTMLElement} frame */
  #enlarge(item, frame) {
    const image = frame.querySelector("img");
    if (image && offered(item) && (item.size ?? Infinity) <= SHOWN_BYTES) {
      improve(image, originalAddress(item.key));
    }
  }

  /**
   * @param {State} state
   * @param {string} key
   * @param {AbortSignal} signal
   * @returns {Promise<Node[]>}
   */
  async #near(state, key, signal) {
    const { results } = await api.read("v1/items/duplicates", { key, limit: NEAR }, signal);
    if (!results.length) return [];
    const links = results.map((/** @type {{ key: string, exact: boolean, distance: number }} */ one) =>
      make(
        "li",
        {},
        make(
          "a",
          { href: address({ ...state, item: one.key }), "data-item": one.key },
          thumbnail(one.key),
          make("span", { class: "muted" }, one.exact ? "same file" : "nearly the same"),
        ),
      ),
    );
    return [make("h3", {}, "Near duplicates"), make("ul", { class: "strip" }, ...links)];
  }
}

/** Whether there may be an original: kept here, or a file in the item's source. @param {Item} item */
function offered({ original, source }) {
  return original || source !== null;
}

/** @param {string[]} names */
function labels(names) {
  const items = names.map((name) => make("li", {}, name));
  return make("ul", { class: "label-list" }, ...items);
}
