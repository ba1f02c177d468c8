// @ts-check
/** What is told in place of results: why there are none, what failed, what to do. */

import { Problem } from "./api.js";
import { button, make } from "./dom.js";
import * as format from "./format.js";
import { ImageGone } from "./search.js";
import { filterCount } from "./state.js";
import { inWords } from "./where.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {import("./search.js").Search} Search
 * @typedef {{ text: string, act: () => void }} Way what the user can do
 */

/**
 * @param {string} title
 * @param {(Node | string)[]} lines
 * @param {Way[]} [ways]
 * @param {{ alert?: boolean }} [how] alert: told at once by screen readers
 * @returns {HTMLElement}
 */
export function notice(title, lines, ways = [], { alert = false } = {}) {
  const buttons = ways.map(({ text, act }, place) => button(text, act, place ? "" : "primary"));
  return make(
    "div",
    { class: alert ? "notice failed" : "notice", role: alert ? "alert" : null },
    make("h3", {}, title),
    ...lines.map((line) => (typeof line === "string" ? make("p", {}, line) : line)),
    buttons.length ? make("div", { class: "buttons" }, ...buttons) : null,
  );
}

/**
 * What failed, and how to go on.
 * @param {unknown} error
 * @param {() => void} again
 * @param {() => void} [choose] another image
 * @returns {HTMLElement}
 */
export function failure(error, again, choose) {
  if (error instanceof ImageGone) {
    return notice(
      "Choose the image again",
      ["The image of this search was kept in the tab where it was chosen, and is not there any more."],
      choose ? [{ text: "Choose an image", act: choose }] : [],
      { alert: true },
    );
  }
  const told =
    error instanceof Problem
      ? error
      : new Problem(0, "The page failed", "This is a fault of the page. Its console says more.");
  if (!(error instanceof Problem)) console.error(error);
  const lines = [told.detail];
  if (told.retryAfter) lines.push(`It asks to wait ${format.things(told.retryAfter, "second")}.`);
  const ways = [{ text: told.status === 401 ? "Enter an API key" : "Try again", act: again }];
  if (choose) ways.push({ text: "Choose another image", act: choose });
  return notice(told.title, lines, ways, { alert: true });
}

/**
 * An index without items.
 * @param {() => void} again
 * @returns {HTMLElement}
 */
export function emptyIndex(again) {
  const command = "spherequant index MODEL photos/ --out INDEX";
  return notice(
    "This index is empty",
    [
      "Fill it with a folder of images; the service may keep running meanwhile:",
      make("pre", { tabindex: 0, "aria-label": "Command" }, make("code", {}, command)),
      "MODEL is what spherequant train wrote, INDEX the folder that is served here.",
    ],
    [{ text: "Look again", act: again }],
  );
}

/**
 * Why a search found nothing, and what to loosen.
 * @param {State} state
 * @param {Search} search
 * @param {(state: State) => void} go
 * @returns {HTMLElement}
 */
export function nothingFound(state, search, go) {
  const filtered = filterCount(state.filters) > 0;
  const clear = {
    text: "Clear the filters",
    act: () => go({ ...state, filters: { labels: [], values: {}, ranges: {} } }),
  };
  if (state.minScore !== null && search.scores !== null) {
    const best = search.scores.high;
    return notice(
      "Nothing scores that high",
      [
        `The best score ${filtered ? "under these filters " : ""}is ${format.score(best)}, ` +
          `below the least score of ${format.score(state.minScore)}.`,
      ],
      [
        { text: "Remove the least score", act: () => go({ ...state, minScore: null }) },
        ...(filtered ? [clear] : []),
      ],
    );
  }
  if (filtered) {
    return notice(
      "No item passes the filters",
      [`${state.query ? "No other" : "No"} item has ${inWords(state.filters).join(" and ")}.`],
      [clear],
    );
  }
  return notice("Nothing else is here", ["The index holds no other item than this one."]);
}
