// @ts-check
/** Images that the user searches with: checked before they are sent, kept for this tab. */

import { bytes, count } from "./format.js";

/**
 * @typedef {object} QueryImage
 * @property {string} id
 * @property {string} name
 * @property {Blob | null} file null after a reload
 * @property {string | null} picture a small copy as a data: URL; null if the browser cannot show it
 * @property {number[] | null} vector what the service made of it
 * @typedef {import("./api.js").Limits} Limits
 */

const STORED = "spherequant image ";
const SIDE = 160;

/** Why an image cannot be used, told before anything is sent. */
export class ImageRefused extends Error {}

/** @type {Map<string, QueryImage>} */
const known = new Map();

/**
 * Take an image to search with.
 * @param {File} file
 * @param {Limits} limits
 * @returns {Promise<QueryImage>}
 * @throws {ImageRefused} it is none, or too large
 */
export async function accept(file, limits) {
  const name = file.name || "pasted image";
  // Some systems know no type for HEIC: what has none is left to the service to judge.
  if (file.type && !file.type.startsWith("image/")) {
    throw new ImageRefused(`${name} is not an image (${file.type}).`);
  }
  if (file.size === 0) throw new ImageRefused(`${name} is empty.`);
  if (file.size > limits.image_bytes) {
    throw new ImageRefused(
      `${name} has ${bytes(file.size)}; this service takes images of at most ` +
        `${bytes(limits.image_bytes)}. Make it smaller and try again.`,
    );
  }
  const seen = await look(file);
  if (seen && seen.pixels > limits.pixels) {
    throw new ImageRefused(
      `${name} has ${count(seen.pixels)} pixels; this service takes images of at most ` +
        `${count(limits.pixels)}. Make it smaller and try again.`,
    );
  }
  const image = { id: fresh(), name, file, picture: seen?.picture ?? null, vector: null };
  known.set(image.id, image);
  return image;
}

/**
 * An image of this tab; after a reload what could be kept of it, null if nothing.
 * @param {string} id
 * @returns {QueryImage | null}
 */
export function imageOf(id) {
  if (!known.has(id)) {
    const text = sessionStorage.getItem(STORED + id);
    if (text) known.set(id, { ...JSON.parse(text), id, file: null });
  }
  return known.get(id) ?? null;
}

/**
 * Keep the vector of an image, by which it can be searched with again, after a reload too.
 * @param {QueryImage} image
 * @param {number[]} vector
 */
export function keepVector(image, vector) {
  image.vector = vector;
  const { name, picture } = image;
  try {
    sessionStorage.setItem(STORED + image.id, JSON.stringify({ name, picture, vector }));
  } catch {
    // No room: after a reload the page will say that the image must be chosen again.
  }
}

/**
 * How large an image is, and a small copy; null if the browser cannot show it.
 * @param {Blob} file
 * @returns {Promise<{ pixels: number, picture: string } | null>}
 */
async function look(file) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  try {
    await new Promise((resolve, reject) => {
      image.addEventListener("load", resolve);
      image.addEventListener("error", reject);
      image.src = url;
    });
    return { pixels: image.naturalWidth * image.naturalHeight, picture: small(image) };
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** @param {HTMLImageElement} image */
function small(image) {
  const scale = Math.min(1, SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL();
}

/** crypto.randomUUID is there for https and localhost only. */
function fresh() {
  return [...crypto.getRandomValues(new Uint8Array(8))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}
