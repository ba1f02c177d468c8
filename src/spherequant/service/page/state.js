// @ts-check
/** What is shown, as it stands in the address; the browser's history is the only history. */

/**
 * @typedef {{ kind: "key", key: string } | { kind: "image", id: string }} Query
 * @typedef {{ from: number | null, to: number | null }} Range
 * @typedef {object} Filters
 * @property {string[]} labels any of these
 * @property {Record<string, string[]>} values column -> any of these
 * @property {Record<string, Range>} ranges column -> bounds, both included
 * @typedef {object} State
 * @property {"search" | "collection"} view
 * @property {Query | null} query
 * @property {Filters} filters
 * @property {number | null} minScore
 * @property {string | null} item whose details are open
 */

/** @returns {State} */
export function emptyState() {
  return { view: "search", query: null, filters: emptyFilters(), minScore: null, item: null };
}

/** @returns {Filters} */
export function emptyFilters() {
  return { labels: [], values: {}, ranges: {} };
}

/**
 * How many filters are set.
 * @param {Filters} filters
 */
export function filterCount(filters) {
  return (
    filters.labels.length +
    Object.values(filters.values).flat().length +
    Object.keys(filters.ranges).length
  );
}

/**
 * The state that an address names. What it cannot mean is left out.
 * @param {string} search as `location.search`
 * @returns {State}
 */
export function parse(search) {
  const state = emptyState();
  for (const [name, value] of new URLSearchParams(search)) {
    const [kind, column] = split(name);
    if (name === "view" && value === "collection") state.view = value;
    else if (name === "key" && value) state.query = { kind: "key", key: value };
    else if (name === "image" && value) state.query = { kind: "image", id: value };
    else if (name === "label") state.filters.labels.push(value);
    else if (name === "min") state.minScore = number(value);
    else if (name === "item" && value) state.item = value;
    else if (kind === "is" && named(column)) {
      own(state.filters.values, column, []).push(value);
    } else if ((kind === "from" || kind === "to") && named(column) && number(value) !== null) {
      own(state.filters.ranges, column, { from: null, to: null })[kind] = number(value);
    }
  }
  return state;
}

/**
 * Whether a column can have this name; `__proto__` cannot.
 * @param {string} column
 */
function named(column) {
  return column !== "" && !column.startsWith("_");
}

/**
 * What an object itself has under a name, which may be one that every object inherits, such as
 * `constructor`; where it has nothing, `otherwise` is put there.
 * @template T
 * @param {Record<string, T>} object
 * @param {string} name
 * @param {T} otherwise
 * @returns {T}
 */
function own(object, name, otherwise) {
  if (!Object.hasOwn(object, name)) object[name] = otherwise;
  return object[name];
}

/**
 * The address of a state, relative to the page's own.
 * @param {State} state
 * @returns {string}
 */
export function address(state) {
  const parts = new URLSearchParams();
  if (state.view === "collection") parts.set("view", state.view);
  else for (const [name, value] of searchParts(state)) parts.append(name, value);
  if (state.item !== null) parts.set("item", state.item);
  const text = parts.toString();
  return text ? `./?${text}` : "./";
}

/**
 * What a search depends on, as one text: equal for equal searches.
 * @param {State} state
 */
export function searchKey(state) {
  return new URLSearchParams(searchParts(state)).toString();
}

/**
 * @param {State} state
 * @returns {[string, string][]}
 */
function searchParts({ query, filters, minScore }) {
  /** @type {[string, string][]} */
  const parts = [];
  if (query) parts.push(query.kind === "key" ? ["key", query.key] : ["image", query.id]);
  for (const label of filters.labels) parts.push(["label", label]);
  for (const [column, values] of Object.entries(filters.values)) {
    for (const value of values) parts.push([`is.${column}`, value]);
  }
  for (const [column, { from, to }] of Object.entries(filters.ranges)) {
    if (from !== null) parts.push([`from.${column}`, String(from)]);
    if (to !== null) parts.push([`to.${column}`, String(to)]);
  }
  if (minScore !== null) parts.push(["min", String(minScore)]);
  return parts;
}

/** @param {string} name @returns {[string, string]} */
function split(name) {
  const dot = name.indexOf(".");
  return dot < 0 ? ["", ""] : [name.slice(0, dot), name.slice(dot + 1)];
}

/** @param {string} text @returns {number | null} */
function number(text) {
  const value = Number(text);
  return text.trim() !== "" && Number.isFinite(value) ? value : null;
}
