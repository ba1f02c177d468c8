// @ts-check
/** Keys: "/" goes to the field, arrows walk through the results. */

import { byId } from "./dom.js";

/** Listen for them. */
export function listenForKeys() {
  const grid = byId("grid");
  const field = byId("key-input");
  addEventListener("keydown", (event) => {
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    const typing = event.target instanceof Element && event.target.matches("input, select, textarea");
    if (event.key !== "/" || !plain || typing || document.querySelector("dialog[open]")) return;
    if (byId("search-view").hidden) return;
    event.preventDefault();
    field.focus();
  });
  grid.addEventListener("keydown", (event) => {
    const links = /** @type {HTMLElement[]} */ ([...grid.querySelectorAll(".tile-main")]);
    const tile = event.target instanceof Element ? event.target.closest(".tile") : null;
    const here = links.findIndex((link) => link.parentElement === tile);
    const next = here < 0 ? undefined : links[target(event.key, here, links)];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
}

/**
 * Where a key leads from one result; outside the list for other keys.
 * @param {string} key
 * @param {number} here
 * @param {HTMLElement[]} links
 */
function target(key, here, links) {
  const { bottom } = links[0].getBoundingClientRect();
  const lower = links.findIndex((link) => link.getBoundingClientRect().top > bottom);
  const across = lower < 0 ? links.length : lower;
  switch (key) {
    case "ArrowRight":
      return here + 1;
    case "ArrowLeft":
      return here - 1;
    case "ArrowDown":
      return here + across;
    case "ArrowUp":
      return here - across;
    case "Home":
      return 0;
    case "End":
      return links.length - 1;
    default:
      return -1;
  }
}
