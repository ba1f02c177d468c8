// @ts-check
/** How an image comes to the page: chosen, photographed, dropped, pasted. */

import { byId, make } from "./dom.js";
import { ImageRefused, accept } from "./images.js";

/**
 * @typedef {import("./images.js").QueryImage} QueryImage
 *
 * @typedef {object} Asking
 * @property {() => import("./api.js").Limits} limits of the service
 * @property {() => boolean} takesImages
 * @property {(image: QueryImage) => void} image one was taken
 * @property {(key: string) => void} key one was typed
 */

/**
 * Listen for images and keys.
 * @param {Asking} asking
 */
export function listenForImages(asking) {
  for (const [opener, field] of [["choose", "file"], ["take", "camera"]]) {
    /** @type {HTMLInputElement} */
    const input = byId(field);
    byId(opener).addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      const files = [...(input.files ?? [])];
      input.value = ""; // so that the same file may be chosen again
      take(files, asking);
    });
  }
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    /** @type {HTMLInputElement} */
    const field = byId("key-input");
    const key = field.value.trim();
    if (key) asking.key(key);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files, asking);
  });
  listenForDrops(asking);
}

/** @param {Asking} asking */
function listenForDrops(asking) {
  const veil = byId("veil");
  const brings = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) veil.hidden = true; // out of the window
  });
  addEventListener("drop", (event) => {
    veil.hidden = true;
    if (!brings(event)) return;
    event.preventDefault();
    take([...(event.dataTransfer?.files ?? [])], asking);
  });
}

/**
 * Take the first image of several files, or say why none can be used.
 * @param {File[]} files
 * @param {Asking} asking
 */
async function take(files, asking) {
  if (!files.length) return;
  document.getElementById("refused")?.remove();
  try {
    if (!asking.takesImages()) {
      throw new ImageRefused("This index has no network: it can be searched by key, not by image.");
    }
    const file = files.find(({ type }) => type.startsWith("image/")) ?? files[0];
    asking.image(await accept(file, asking.limits()));
  } catch (error) {
    if (!(error instanceof ImageRefused)) throw error;
    byId("ask").after(make("p", { id: "refused", class: "refused", role: "alert" }, error.message));
  }
}
