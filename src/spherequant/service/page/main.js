// @ts-check
/** The page: one state, and the parts that show it. */

import * as api from "./api.js";
import { listenForImages } from "./ask.js";
import { CollectionView } from "./collection.js";
import { Details } from "./details.js";
import { byId } from "./dom.js";
import { FilterPanel } from "./filters.js";
import * as format from "./format.js";
import { imageOf } from "./images.js";
import { askForKeys } from "./key.js";
import { listenForKeys } from "./keyboard.js";
import { Navigation } from "./navigation.js";
import { emptyIndex, failure } from "./notices.js";
import { ownPicture, thumbnail } from "./pictures.js";
import { moreLike, Results } from "./results.js";
import { forgetSearches, searchOf } from "./search.js";
import { emptyState, searchKey } from "./state.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {import("./navigation.js").Place} Place
 */

/**
 * What the service told of the index; null until it has.
 * @type {(import("./api.js").Collection & { columns: import("./api.js").Column[] }) | null}
 */
let known = null;
/** @type {string | null} the search that the results on the page belong to */
let shown = null;
/** The query that they answer, as JSON. */
let asked = "null";

const navigation = new Navigation(show);
const collection = new CollectionView();
const filters = new FilterPanel((state, how) => navigation.go(state, how));
const results = new Results({
  go: (state) => {
    shown = null;
    navigation.go(state, { replace: searchKey(state) === searchKey(navigation.state) });
  },
  again: () => start(),
  choose: () => byId("file").click(),
  loaded: (search) => {
    navigation.remember({ loaded: search.hits.length });
    filters.show(navigation.state, search.scores);
    if (navigation.state.item !== null) details.refresh();
  },
  sent: showUpload,
});
const details = new Details({
  close: () => navigation.leave({ ...navigation.state, item: null }),
  open: (item) => navigation.go({ ...navigation.state, item }, { replace: true }),
  keys: () => (navigation.state.view === "search" ? results.keys : []),
  score: (key) => {
    const score = navigation.state.view === "search" ? results.hit(key)?.score : undefined;
    return score === undefined || Number.isNaN(score) ? null : score;
  },
});

askForKeys();
listenForKeys();
listenForLinks();
listenForImages({
  limits: () => known?.limits ?? { image_bytes: Infinity, pixels: Infinity, k: 1, offset: 0 },
  takesImages: () => known?.takes_images ?? true,
  image: ({ id }) => ask({ kind: "image", id }),
  key: (key) => ask({ kind: "key", key }),
});
byId("query-clear").addEventListener("click", () => {
  navigation.go({ ...navigation.state, query: null, minScore: null });
  byId("key-input").focus();
});
byId("upload-stop").addEventListener("click", () => history.back());
navigation.start();

/**
 * Show a state. Called for every step through the history.
 * @param {State} state
 * @param {Place | null} place where it was left; null for what the user asked for just now
 */
function show(state, place) {
  const searching = state.view === "search";
  const turned = byId("search-view").hidden === searching;
  byId("search-view").hidden = !searching;
  byId("collection-view").hidden = searching;
  for (const [link, here] of [["to-search", searching], ["to-collection", !searching]]) {
    if (here) byId(String(link)).setAttribute("aria-current", "page");
    else byId(String(link)).removeAttribute("aria-current");
  }
  document.title = titleOf(state);
  if (searching) showSearch(state, place);
  else if (turned || !byId("collection-view").hasChildNodes()) collection.show();
  details.show(state);
}

/**
 * @param {State} state
 * @param {Place | null} place
 */
async function showSearch(state, place) {
  collection.stop();
  showQuery(state);
  if (known === null) await start(place);
  else if (known.items === 0) results.tell(emptyIndex(() => start()));
  else if (searchKey(state) !== shown) {
    shown = searchKey(state);
    const query = JSON.stringify(state.query);
    // What was clicked goes away with the old results; a filter that was changed stays.
    const renewed = place === null && state.query !== null && query !== asked;
    asked = query;
    document.getElementById("refused")?.remove();
    const search = searchOf(state, known.limits, known.columns);
    filters.show(state, search.scores);
    const done = results.show(state, search, place?.loaded ?? 0);
    scrollTo({ top: place?.top ?? 0, behavior: "instant" });
    if (renewed) byId("query-title").focus({ preventScroll: true });
    await done;
    if (place && searchKey(navigation.state) === shown) scrollTo({ top: place.top, behavior: "instant" });
  }
}

/**
 * Learn what the index holds, then show the state of now.
 * @param {Place | null} [place]
 */
async function start(place = null) {
  forgetSearches();
  shown = null;
  try {
    const [facts, { columns }, labels] = await Promise.all([
      api.read("v1/collection", { recent: 0 }),
      api.read("v1/columns"),
      api.read("v1/labels"),
    ]);
    if (facts.items) filters.build(columns, labels);
    else filters.hide();
    known = { ...facts, columns };
    byId("drop").hidden = !facts.takes_images;
  } catch (error) {
    results.tell(failure(error, () => start()));
    return;
  }
  if (navigation.state.view === "search") await showSearch(navigation.state, place);
}

/** @param {NonNullable<State["query"]>} query */
function ask(query) {
  shown = null;
  const { filters: kept } = navigation.state;
  navigation.go({ ...emptyState(), filters: kept, query });
}

/** @param {State} state */
function showQuery({ query }) {
  byId("query").hidden = query === null;
  byId("search-view").toggleAttribute("data-asked", query !== null);
  /** @type {HTMLInputElement} */
  const field = byId("key-input");
  field.value = "";
  if (query === null) return;
  const image = query.kind === "image" ? imageOf(query.id) : null;
  const name = query.kind === "key" ? query.key : (image?.name ?? "an image that is not here any more");
  byId("query-title").textContent = query.kind === "key" ? "More like this item" : "More like this image";
  byId("query-name").textContent = name;
  byId("query-picture").replaceChildren(
    query.kind === "key" ? thumbnail(query.key) : ownPicture(image?.picture ?? null, name),
  );
}

/** @param {number | null} share */
function showUpload(share) {
  byId("upload").hidden = share === null;
  if (share === null) return;
  /** @type {HTMLProgressElement} */
  const bar = byId("upload-bar");
  byId("upload-text").textContent = share < 1 ? "Sending the image…" : "Searching…";
  if (share < 1) bar.value = share;
  else bar.removeAttribute("value");
}

/** Links within the page change its state; opened in another tab they are addresses like any. */
function listenForLinks() {
  addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    const changed = event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    if (!link || changed || event.defaultPrevented) return;
    const next = stateBehind(link);
    if (!next) return;
    event.preventDefault();
    const within = link.closest("dialog") !== null && next.item !== null;
    navigation.go(next, { replace: within, inside: next.item !== null });
  });
}

/** @param {HTMLAnchorElement} link @returns {State | null} */
function stateBehind(link) {
  const { item, like, label, view } = link.dataset;
  const state = navigation.state;
  if (item !== undefined) return { ...state, item };
  if (like !== undefined) return moreLike(state, like);
  if (label !== undefined) {
    return { ...emptyState(), filters: { labels: [label], values: {}, ranges: {} } };
  }
  if (view === "collection") return { ...emptyState(), view };
  if (view === "search") return emptyState();
  return null;
}

/** @param {State} state */
function titleOf({ view, query, item }) {
  const parts = ["spherequant"];
  if (view === "collection") parts.unshift("Collection");
  else if (query?.kind === "key") parts.unshift(`Like ${format.nameOf(query.key)}`);
  else if (query) parts.unshift(`Like ${imageOf(query.id)?.name ?? "an image"}`);
  if (item !== null) parts.unshift(format.nameOf(item));
  return parts.join(" · ");
}
