// @ts-check
/** The panel of filters: least score, labels, metadata. */

import { button, byId, make } from "./dom.js";
import * as format from "./format.js";
import { emptyFilters, filterCount } from "./state.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {import("./state.js").Filters} Filters
 * @typedef {import("./api.js").Column} Column
 * @typedef {import("./api.js").Labels} Labels
 * @typedef {import("./search.js").Scores} Scores
 * @typedef {Pick<Column, "values" | "distinct">} Counts
 */

/** Choices shown before the user asks for all of them. */
const SHORT = 10;
const STEP = 0.001;

export class FilterPanel {
  #body = byId("filters-body");
  #panel = byId("filters");
  #toggle = byId("filters-toggle");
  /** @type {((state: State, scores: Scores | null) => void)[]} */
  #parts = [];
  /** @type {State | null} */
  #state = null;
  #go;

  /** @param {(state: State, how?: { replace?: boolean }) => void} go */
  constructor(go) {
    this.#go = go;
    this.#toggle.addEventListener("click", () => {
      this.#open(this.#toggle.getAttribute("aria-expanded") !== "true");
    });
    this.#panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.#panel.hasAttribute("data-open")) return;
      this.#open(false);
      this.#toggle.focus();
    });
  }

  /**
   * Make the controls for what the index holds.
   * @param {Column[]} columns
   * @param {Labels} labels
   */
  build(columns, labels) {
    this.#parts = [];
    const own = columns.filter((column) => column.metadata);
    /** @type {HTMLElement[]} */
    const parts = [this.#head(), this.#threshold()];
    if (labels.labels.length) {
      const values = labels.labels.map(({ label, count }) => ({ value: label, count }));
      parts.push(this.#choices("Labels", "labels", { values, distinct: labels.distinct }));
    }
    for (const column of own) {
      if (column.type === "string") parts.push(this.#choices(column.name, column.name, column));
      else parts.push(this.#range(column.name, column.type));
    }
    this.#body.replaceChildren(...parts);
    this.#panel.hidden = false;
  }

  /** Leave the panel out, as when there is nothing to filter. */
  hide() {
    this.#panel.hidden = true;
  }

  /**
   * Show what a state has chosen.
   * @param {State} state
   * @param {Scores | null} scores seen for its query
   */
  show(state, scores) {
    this.#state = state;
    for (const part of this.#parts) part(state, scores);
    const count = filterCount(state.filters) + (state.minScore === null ? 0 : 1);
    this.#toggle.textContent = count ? `Filters (${count})` : "Filters";
  }

  /** @param {boolean} open */
  #open(open) {
    this.#panel.toggleAttribute("data-open", open);
    this.#toggle.setAttribute("aria-expanded", String(open));
  }

  /** @param {(filters: Filters) => void} change */
  #change(change) {
    if (!this.#state) return;
    const filters = structuredClone(this.#state.filters);
    change(filters);
    this.#go({ ...this.#state, filters });
  }

  #head() {
    const clear = button(
      "Clear all",
      () => {
        if (this.#state) this.#go({ ...this.#state, filters: emptyFilters(), minScore: null });
      },
      "quiet",
    );
    this.#parts.push((state) => {
      clear.disabled = filterCount(state.filters) === 0 && state.minScore === null;
    });
    return make("div", { class: "filters-head" }, make("h2", {}, "Filters"), clear);
  }

  #threshold() {
    const slider = make("input", { type: "range", id: "threshold", step: STEP });
    const output = make("output", { for: "threshold" });
    const ends = [make("span"), make("span")];
    const part = make(
      "div",
      { class: "filter threshold" },
      make("div", { class: "filter-head" }, make("label", { for: "threshold" }, "Least score"), output),
      slider,
      make("div", { class: "ends muted", "aria-hidden": "true" }, ...ends),
    );
    // As numbers: a browser may drop the last zero of the one and not of the other.
    const any = () => slider.valueAsNumber <= Number(slider.min);
    const tell = () => {
      output.textContent = any() ? "any" : format.score(Number(slider.value));
      slider.setAttribute("aria-valuetext", output.textContent);
    };
    slider.addEventListener("input", tell);
    slider.addEventListener("change", () => {
      const state = this.#state;
      if (!state) return;
      const minScore = any() ? null : slider.valueAsNumber;
      // Only the first move makes an entry of the history: Back undoes the whole sliding.
      if (minScore !== state.minScore) {
        this.#go({ ...state, minScore }, { replace: state.minScore !== null && minScore !== null });
      }
    });
    this.#parts.push((state, scores) => {
      part.hidden = state.query === null || scores === null;
      if (part.hidden || !scores) return;
      const low = Math.min(scores.low, state.minScore ?? scores.low);
      const high = Math.max(scores.high, state.minScore ?? scores.high);
      slider.min = (Math.floor(low / STEP) * STEP).toFixed(3);
      slider.max = (Math.ceil(high / STEP) * STEP).toFixed(3);
      slider.value = state.minScore === null ? slider.min : String(state.minScore);
      ends[0].textContent = slider.min;
      ends[1].textContent = slider.max;
      tell();
    });
    return part;
  }

  /**
   * Values to choose from, each with its count.
   * @param {string} title
   * @param {string} column
   * @param {Counts} counts
   */
  #choices(title, column, counts) {
    const chosen = (/** @type {Filters} */ filters) =>
      column === "labels" ? filters.labels : (given(filters.values, column) ?? []);
    const list = make("ul", { class: "choices" });
    const all = new Map(counts.values.map((one) => [String(one.value), one.count]));
    /** @type {Map<string, HTMLInputElement>} */
    const boxes = new Map();
    const add = (/** @type {string} */ value) => {
      const box = make("input", { type: "checkbox", value });
      box.addEventListener("change", () => {
        this.#change((filters) => choose(filters, column, value, box.checked));
      });
      const count = all.get(value);
      list.append(
        make(
          "li",
          {},
          make(
            "label",
            {},
            box,
            make("span", { class: "choice" }, value),
            count === undefined ? null : make("span", { class: "count" }, format.count(count)),
          ),
        ),
      );
      boxes.set(value, box);
    };
    for (const value of all.keys()) add(value);
    this.#parts.push((state) => {
      const values = chosen(state.filters);
      for (const value of values) if (!boxes.has(value)) add(value);
      for (const [value, box] of boxes) box.checked = values.includes(value);
    });
    const group = make(
      "fieldset",
      { class: "filter" },
      make("legend", {}, title),
      all.size > SHORT || all.size === 0 ? finder(title, list, all.size === 0, (value) => {
        this.#change((filters) => choose(filters, column, value, true));
      }) : null,
      list,
    );
    if (all.size && counts.distinct !== null && counts.distinct > all.size) {
      const told = `the ${format.count(all.size)} most frequent of ${format.count(counts.distinct)}`;
      group.append(make("p", { class: "muted" }, told));
    }
    return group;
  }

  /**
   * Bounds of a number.
   * @param {string} column
   * @param {string} type
   */
  #range(column, type) {
    const inputs = [bound(column, "from", type), bound(column, "to", type)];
    const read = () =>
      inputs.map((input) => (input.value === "" ? null : Number(input.value)));
    for (const input of inputs) {
      input.addEventListener("change", () => {
        const [from, to] = read();
        this.#change((filters) => {
          if (from === null && to === null) delete filters.ranges[column];
          else filters.ranges[column] = { from, to };
        });
      });
    }
    this.#parts.push((state) => {
      const { from, to } = given(state.filters.ranges, column) ?? { from: null, to: null };
      inputs[0].value = from === null ? "" : String(from);
      inputs[1].value = to === null ? "" : String(to);
    });
    return make(
      "fieldset",
      { class: "filter range" },
      make("legend", {}, column),
      inputs[0],
      make("span", { "aria-hidden": "true" }, "–"),
      inputs[1],
    );
  }
}

/**
 * What is given for a column, whose name may be one that every object inherits.
 * @template T
 * @param {Record<string, T>} object
 * @param {string} column
 * @returns {T | undefined}
 */
function given(object, column) {
  return Object.hasOwn(object, column) ? object[column] : undefined;
}

/**
 * @param {Filters} filters
 * @param {string} column
 * @param {string} value
 * @param {boolean} on
 */
function choose(filters, column, value, on) {
  const before = column === "labels" ? filters.labels : (given(filters.values, column) ?? []);
  const after = before.filter((other) => other !== value);
  if (on) after.push(value);
  if (column === "labels") filters.labels = after;
  else if (after.length) filters.values[column] = after;
  else delete filters.values[column];
}

/**
 * A field that narrows a list of choices; Enter takes the text itself where there is no list.
 * @param {string} title
 * @param {HTMLUListElement} list
 * @param {boolean} open whether any text may be a value
 * @param {(value: string) => void} take
 */
function finder(title, list, open, take) {
  const hint = open ? "Exact value" : "Find";
  const field = make("input", { type: "search", placeholder: hint, "aria-label": `${hint}: ${title}` });
  const narrow = () => {
    const wanted = field.value.toLowerCase();
    for (const choice of list.children) {
      /** @type {HTMLElement} */ (choice).hidden = !choice
        .querySelector(".choice")
        ?.textContent?.toLowerCase()
        .includes(wanted);
    }
  };
  if (!open) field.addEventListener("input", narrow);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    if (open && field.value) take(field.value);
    if (open) field.value = "";
  });
  return field;
}

/** @param {string} column @param {string} side @param {string} type */
function bound(column, side, type) {
  return make("input", {
    type: "number",
    step: type === "int64" ? 1 : "any",
    "aria-label": `${column} ${side}`,
    placeholder: side,
  });
}
