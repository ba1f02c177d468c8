// @ts-check
/** One search and its pages of results. */

import * as api from "./api.js";
import { imageOf, keepVector } from "./images.js";
import { searchKey } from "./state.js";
import { whereOf } from "./where.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {import("./api.js").Limits} Limits
 * @typedef {import("./api.js").Column} Column
 * @typedef {{ low: number, high: number }} Scores
 * @typedef {{ signal?: AbortSignal, sent?: (share: number) => void }} How
 */

export const PAGE = 48;
const KEPT = 12;
const LATEST = 96;

/** The image of the address was chosen in another tab, or before too much else. */
export class ImageGone extends Error {}

/**
 * Scores seen for a query under its filters, whatever the least score was then.
 * @type {Map<string, Scores>}
 */
const seen = new Map();

/** @type {Map<string, Search>} */
const kept = new Map();

/**
 * The search of a state: the one made before with all that it has loaded, or a new one.
 * @param {State} state
 * @param {Limits} limits
 * @param {Column[]} columns
 * @returns {Search}
 */
export function searchOf(state, limits, columns) {
  const name = searchKey(state);
  const search = kept.get(name) ?? new Search(state, limits, columns);
  kept.delete(name);
  kept.set(name, search);
  if (kept.size > KEPT) kept.delete([...kept.keys()][0]);
  return search;
}

/** Ask everything anew from now on. */
export function forgetSearches() {
  kept.clear();
  seen.clear();
}

export class Search {
  /** @type {import("./api.js").Hit[]} */
  hits = [];
  /** Whether there is nothing more to load. */
  done = false;
  /** Whether the service would not page any further, though there is more. */
  capped = false;
  /** Items in the index. */
  total = 0;
  #offset = 0;
  #keys = new Set();
  #limits;
  #unbounded;

  /**
   * @param {State} state
   * @param {Limits} limits
   * @param {Column[]} columns
   */
  constructor(state, limits, columns) {
    this.query = state.query;
    this.minScore = state.minScore;
    this.where = whereOf(state.filters, columns);
    this.#limits = limits;
    this.#unbounded = searchKey({ ...state, minScore: null });
  }

  /** @returns {Scores | null} the scores seen for this query and these filters */
  get scores() {
    return seen.get(this.#unbounded) ?? null;
  }

  /**
   * Load the next results.
   * @param {How} [how]
   * @returns {Promise<import("./api.js").Hit[]>} those that came
   * @throws {api.Problem}
   * @throws {ImageGone}
   */
  async more(how = {}) {
    if (this.query === null) return this.#latest(how.signal);
    if (this.minScore !== null && this.scores === null) {
      // An address that came from elsewhere: the slider needs the scores on both sides of it.
      this.#see(await this.#ask({ k: PAGE }, how));
    }
    const k = Math.min(PAGE, this.#limits.k);
    const answer = await this.#ask({ k, offset: this.#offset, min_score: this.minScore }, how);
    this.#offset += k;
    this.total = answer.total;
    this.capped = answer.results.length === k && this.#offset > this.#limits.offset;
    this.done = this.capped || answer.results.length < k;
    this.#see(answer);
    return this.#keep(answer.results);
  }

  /** Where nothing is asked yet: what was changed last. @param {AbortSignal} [signal] */
  async #latest(signal) {
    const asked = { n: LATEST, where: this.where };
    const { items } = await api.read("v1/latest", asked, signal);
    this.done = true;
    const hits = items.map((/** @type {api.Item} */ item) => ({ ...item, score: NaN }));
    return this.#keep(hits);
  }

  /** @param {import("./api.js").Hit[]} hits */
  #keep(hits) {
    // An item that was added between two pages pushes one on to the next, where it comes again.
    const fresh = hits.filter((hit) => !this.#keys.has(hit.key));
    for (const hit of fresh) this.#keys.add(hit.key);
    this.hits.push(...fresh);
    return fresh;
  }

  /** @param {api.SearchAnswer} answer */
  #see({ results }) {
    if (!results.length) return;
    const high = results[0].score;
    const low = results[results.length - 1].score;
    const before = this.scores ?? { low, high };
    seen.set(this.#unbounded, {
      low: Math.min(low, before.low),
      high: Math.max(high, before.high),
    });
  }

  /**
   * @param {Record<string, number | null>} query
   * @param {How} how
   * @returns {Promise<api.SearchAnswer>}
   */
  async #ask(query, how) {
    const asked = { ...query, where: this.where };
    if (this.query?.kind === "key") return api.search({ key: this.query.key }, asked, how.signal);
    const image = imageOf(this.query?.id ?? "");
    if (image?.vector) return api.search({ vector: image.vector }, asked, how.signal);
    if (!image?.file) throw new ImageGone();
    const wanted = { ...asked, with_vector: true };
    how.sent?.(0);
    const answer = await api.searchByImage(image.file, image.name, wanted, how);
    if (answer.vector) keepVector(image, answer.vector);
    return answer;
  }
}
