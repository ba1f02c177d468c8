// @ts-check
/** Thumbnails and originals as img elements; with an API key they are fetched with its header. */

import { addressOf, apiKey, readBlob } from "./api.js";
import { icon, make } from "./dom.js";

/** Fewer pixels than this on a side are shown as the squares that they are. */
const TINY = 64;

const approaching = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      approaching.unobserve(target);
      fetchInto(/** @type {HTMLImageElement} */ (target), target.getAttribute("data-address") ?? "");
    }
  },
  { rootMargin: "600px" },
);

/** @param {string} key */
export function thumbnailAddress(key) {
  return addressOf("v1/thumbnail", { key });
}

/** @param {string} key */
export function originalAddress(key) {
  return addressOf("v1/original", { key });
}

/**
 * The thumbnail of an item, in a frame that shows a sign where there is none.
 * @param {string} key
 * @param {string} [alt]
 * @returns {HTMLSpanElement}
 */
export function thumbnail(key, alt = key) {
  const image = make("img", { alt, decoding: "async", loading: "lazy", draggable: "false" });
  const frame = make("span", { class: "picture" }, image);
  image.addEventListener("load", () => settle(image));
  image.addEventListener("error", () => frame.replaceChildren(missing(alt)));
  if (apiKey() === null) {
    image.src = thumbnailAddress(key);
  } else {
    image.dataset.address = thumbnailAddress(key);
    image.removeAttribute("loading");
    approaching.observe(image);
  }
  return frame;
}

/**
 * A picture that the page itself holds, or a sign in its place.
 * @param {string | null} source a data: URL
 * @param {string} alt
 */
export function ownPicture(source, alt) {
  if (source === null) return missing(alt);
  const image = make("img", { alt, draggable: "false" });
  image.addEventListener("load", () => settle(image));
  image.src = source;
  return image;
}

/**
 * Show another picture in an img once it has been read; the old one stays if it cannot be.
 * @param {HTMLImageElement} image
 * @param {string} address
 */
export async function improve(image, address) {
  try {
    const url = URL.createObjectURL(await readBlob(address));
    const better = make("img", { alt: image.alt, draggable: "false" });
    better.src = url;
    await better.decode();
    URL.revokeObjectURL(url);
    settle(better);
    image.replaceWith(better);
  } catch {
    // The thumbnail is all that can be shown here.
  }
}

/** @param {HTMLImageElement} image @param {string} address */
async function fetchInto(image, address) {
  try {
    const url = URL.createObjectURL(await readBlob(address));
    image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    image.src = url;
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}

/** @param {HTMLImageElement} image */
function settle(image) {
  const tiny = Math.max(image.naturalWidth, image.naturalHeight) < TINY;
  image.classList.toggle("tiny", tiny);
}

/** @param {string} alt */
function missing(alt) {
  return make("span", { class: "missing", role: "img", "aria-label": `${alt} (no picture)` }, icon("image"));
}
