// @ts-check
/** The second view: what the index holds, what changed, what is there twice. */

import * as api from "./api.js";
import { button, byId, make } from "./dom.js";
import * as format from "./format.js";
import { emptyIndex, failure } from "./notices.js";
import { thumbnail } from "./pictures.js";
import { address, emptyFilters, emptyState } from "./state.js";

/**
 * @typedef {import("./api.js").Collection} Collection
 * @typedef {import("./api.js").Labels} Labels
 * @typedef {{ size: number, members: { key: string }[] }} Group
 */

const LATEST = 12;
const CLASSES = 24;
const GROUPS = 12;
const MOST_GROUPS = 120;
const MEMBERS = 8;

export class CollectionView {
  #view = byId("collection-view");
  #stop = new AbortController();

  /** Ask for everything and show it; each part comes when it is there. */
  async show() {
    this.#stop.abort();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    const size = part("size", "Size", true);
    const classes = part("classes", "Classes");
    const changes = part("changes", "Recent changes");
    const twice = part("duplicates", "Near duplicates");
    this.#view.replaceChildren(
      make("h1", { id: "collection-title", tabindex: -1 }, "Collection"),
      size,
      make("div", { class: "halves" }, classes, changes),
      twice,
    );
    const others = [classes, changes, twice];
    for (const other of others) other.hidden = true;
    await fill(size, signal, async () => {
      /** @type {Collection} */
      const facts = await api.read("v1/collection", { recent: LATEST }, signal);
      if (facts.items === 0) return emptyIndex(() => this.show());
      for (const other of others) other.hidden = false;
      fill(classes, signal, async () => labels(await api.read("v1/labels", {}, signal)));
      fill(changes, signal, async () => changed(facts.recent));
      this.#duplicates(twice, signal, false);
      return sizes(facts);
    });
  }

  /** Give up what is still being asked. */
  stop() {
    this.#stop.abort();
  }

  /**
   * @param {HTMLElement} place
   * @param {AbortSignal} signal
   * @param {boolean} exact whether files must be the same to the byte
   */
  #duplicates(place, signal, exact) {
    return fill(place, signal, async () => {
      const asked = { exact: exact || null, limit: MOST_GROUPS };
      const found = await api.read("v1/duplicates", asked, signal);
      const choice = make(
        "select",
        { "aria-label": "How alike" },
        make("option", { value: "near", selected: !exact }, "nearly the same picture"),
        make("option", { value: "exact", selected: exact }, "the very same file"),
      );
      choice.addEventListener("change", () => {
        this.#duplicates(place, signal, choice.value === "exact").then(() =>
          place.querySelector("select")?.focus(),
        );
      });
      return make("div", {}, make("p", {}, choice), groups(found));
    });
  }
}

/**
 * @param {string} name
 * @param {string} title
 * @param {boolean} [wide]
 */
function part(name, title, wide = false) {
  return make(
    "section",
    { class: wide ? "part wide" : "part", id: name, "aria-labelledby": `${name}-title` },
    make("h2", { id: `${name}-title` }, title),
    make("div", { class: "part-body" }),
  );
}

/**
 * Fill a part with what is made of the service's answer, or with what failed.
 * @param {HTMLElement} place
 * @param {AbortSignal} signal
 * @param {() => Promise<HTMLElement>} work
 */
async function fill(place, signal, work) {
  const body = /** @type {HTMLElement} */ (place.querySelector(".part-body"));
  body.setAttribute("aria-busy", "true");
  if (!body.firstChild) body.replaceChildren(make("p", { class: "muted" }, "Loading…"));
  try {
    const made = await work();
    if (!signal.aborted) body.replaceChildren(made);
  } catch (error) {
    if (!signal.aborted) {
      body.replaceChildren(failure(error, () => void fill(place, signal, work)));
    }
  } finally {
    body.removeAttribute("aria-busy");
  }
}

/** @param {Collection} facts */
function sizes(facts) {
  /** @type {[string, string, string][]} */
  const rows = [
    ["Items", format.count(facts.items), ""],
    ["Code of an item", format.things(facts.bytes_per_item, "byte"), `${facts.bits} bits`],
    ["In memory", format.bytes(facts.bytes_memory), each(facts.bytes_memory, facts.items)],
    ["On disk", format.bytes(facts.bytes_disk), each(facts.bytes_disk, facts.items)],
    ["of it thumbnails", format.bytes(facts.bytes_thumbnails), each(facts.bytes_thumbnails, facts.items)],
    ["of it originals", format.bytes(facts.bytes_originals), "kept with items that were put"],
  ];
  return make(
    "div",
    {},
    make(
      "dl",
      { class: "figures" },
      ...rows.map(([name, value, note]) =>
        make(
          "div",
          {},
          make("dt", {}, name),
          make("dd", {}, make("strong", {}, value), note ? make("span", { class: "muted" }, note) : null),
        ),
      ),
    ),
    make(
      "p",
      { class: "muted" },
      `Model ${facts.fingerprint.slice(0, 12)}, vectors of ${facts.dim} dimensions; ` +
        `version ${facts.index_version} of the index; spherequant ${facts.version}.`,
    ),
  );
}

/** @param {number} all @param {number} items */
function each(all, items) {
  return `${format.bytes(Math.round(all / items))} an item`;
}

/** @param {Labels} counts */
function labels({ labels: all, distinct, unlabelled }) {
  if (!all.length) return make("p", { class: "muted" }, "No item has a label.");
  const most = all[0].count;
  const rows = all.slice(0, CLASSES).map(({ label: name, count }) => {
    const filters = { ...emptyFilters(), labels: [name] };
    const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("span"));
    /** @type {HTMLElement} */ (bar.firstChild).style.width = `${(100 * count) / most}%`;
    return make(
      "li",
      {},
      make(
        "a",
        { href: address({ ...emptyState(), filters }), "data-label": name },
        make("span", { class: "choice" }, name),
        bar,
        make("span", { class: "count" }, format.count(count)),
      ),
    );
  });
  const notes = [];
  if (distinct !== null && distinct > rows.length) {
    notes.push(`the most frequent of ${format.count(distinct)}`);
  }
  if (unlabelled) notes.push(`${format.things(unlabelled, "item")} without any label`);
  return make(
    "div",
    {},
    make("ol", { class: "bars" }, ...rows),
    notes.length ? make("p", { class: "muted" }, notes.join("; ")) : null,
  );
}

/** @param {import("./api.js").Item[]} items */
function changed(items) {
  const rows = items.map((item) =>
    make(
      "li",
      {},
      make(
        "a",
        { href: address({ ...emptyState(), view: "collection", item: item.key }), "data-item": item.key },
        thumbnail(item.key, ""),
        make("span", { class: "change-key" }, item.key),
        make("time", { datetime: item.changed, class: "muted" }, format.ago(item.changed)),
      ),
    ),
  );
  return make("ol", { class: "changes" }, ...rows);
}

/** @param {{ groups: Group[], total: number, items: number }} found */
function groups({ groups: found, total, items }) {
  if (!found.length) return make("p", { class: "muted" }, "No item is here twice.");
  let shown = 0;
  const list = make("ol", { class: "groups" });
  const more = button("Show more groups", () => add());
  const add = () => {
    const next = found.slice(shown, shown + GROUPS);
    list.append(...next.map(group));
    shown += next.length;
    more.hidden = shown >= found.length;
  };
  add();
  const told = `${format.things(total, "group")} of ${format.things(items, "item")} in all`;
  return make("div", {}, make("p", { class: "muted" }, told), list, more);
}

/** @param {Group} found */
function group({ size, members }) {
  const shown = members.slice(0, MEMBERS).map(({ key }) =>
    make(
      "a",
      {
        href: address({ ...emptyState(), view: "collection", item: key }),
        "data-item": key,
        title: key,
      },
      thumbnail(key),
    ),
  );
  const rest = size - shown.length;
  return make(
    "li",
    { class: "group" },
    ...shown,
    rest > 0 ? make("span", { class: "muted" }, `and ${format.count(rest)} more`) : null,
  );
}

