// @ts-check
/** The service's HTTP API. Every failure becomes a `Problem` that can be told to the user. */

const KEY = "spherequant API key";

/**
 * @typedef {object} Hit a result of a search
 * @property {number} rank
 * @property {string} key
 * @property {number} score
 * @property {string[]} labels
 * @property {Record<string, string | number | null>} metadata
 *
 * @typedef {object} Item an item as it is stored
 * @property {number} id
 * @property {string} key
 * @property {string[]} labels
 * @property {Record<string, string | number | null>} metadata
 * @property {string | null} source
 * @property {number | null} size
 * @property {number | null} mtime
 * @property {string | null} digest
 * @property {string} changed RFC 3339
 * @property {boolean} original whether the service keeps its bytes itself
 *
 * @typedef {object} SearchAnswer
 * @property {Hit[]} results
 * @property {number} total
 * @property {number[] | null} [vector] of an image that was sent
 *
 * @typedef {object} Column a column that a filter can name
 * @property {string} name
 * @property {string} type
 * @property {boolean} metadata whether it is one of the user's own
 * @property {{ value: string | number, count: number }[]} values the most frequent
 * @property {number | null} distinct how many values there are, if they were counted
 *
 * @typedef {object} Labels
 * @property {{ label: string, count: number }[]} labels the most frequent
 * @property {number | null} distinct
 * @property {number} unlabelled
 *
 * @typedef {object} Collection
 * @property {number} items
 * @property {number} index_version
 * @property {number} bits
 * @property {number} dim
 * @property {number} bytes_per_item
 * @property {number} bytes_memory
 * @property {number} bytes_disk
 * @property {number} bytes_thumbnails
 * @property {number} bytes_originals
 * @property {boolean} takes_images
 * @property {string} fingerprint
 * @property {string} version
 * @property {Item[]} recent
 * @property {Limits} limits
 *
 * @typedef {object} Limits what the service takes at most
 * @property {number} image_bytes
 * @property {number} pixels
 * @property {number} k results in one answer
 * @property {number} offset results passed over
 */

/** What went wrong with a request, in words for the user. */
export class Problem extends Error {
  /**
   * @param {number} status of HTTP; 0 when no answer came
   * @param {string} title
   * @param {string} detail
   * @param {number | null} [retryAfter] seconds
   */
  constructor(status, title, detail, retryAfter = null) {
    super(`${title}: ${detail}`);
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }
}

/** @type {(refused: boolean) => Promise<boolean>} */
let askForKey = () => Promise.resolve(false);
/** @type {Promise<boolean> | null} */
let asking = null;

/**
 * Say how the user is asked for an API key.
 * @param {(refused: boolean) => Promise<boolean>} ask whether one was given; refused: it had one
 */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** @returns {string | null} */
export function apiKey() {
  return sessionStorage.getItem(KEY);
}

/** @param {string} key */
export function useApiKey(key) {
  sessionStorage.setItem(KEY, key);
}

/**
 * @param {string} path
 * @param {Record<string, string | number | boolean | string[] | null | undefined>} [query]
 *   null, undefined and empty texts are left out
 */
export function addressOf(path, query = {}) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (Array.isArray(value)) for (const one of value) parts.append(name, one);
    else if (value != null && value !== "") parts.append(name, String(value));
  }
  const text = parts.toString();
  return text ? `${path}?${text}` : path;
}

/**
 * Read something.
 * @param {string} path
 * @param {Parameters<typeof addressOf>[1]} [query]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function read(path, query, signal) {
  const answer = await fetched(addressOf(path, query), { signal });
  return answer.json();
}

/**
 * Read the bytes of a picture.
 * @param {string} address
 * @param {AbortSignal} [signal]
 * @returns {Promise<Blob>}
 */
export async function readBlob(address, signal) {
  const answer = await fetched(address, { signal });
  return answer.blob();
}

/**
 * Search with a key or a vector.
 * @param {{ key: string } | { vector: number[] }} asked
 * @param {Parameters<typeof addressOf>[1]} query
 * @param {AbortSignal} [signal]
 * @returns {Promise<SearchAnswer>}
 */
export async function search(asked, query, signal) {
  const answer = await fetched(addressOf("v1/search", query), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(asked),
    signal,
  });
  return answer.json();
}

/**
 * Search with an image.
 * @param {Blob} image
 * @param {string} name of its file
 * @param {Parameters<typeof addressOf>[1]} query
 * @param {{ signal?: AbortSignal, sent?: (share: number) => void }} [how]
 *   sent: told how much of the image is on its way, 0 to 1
 * @returns {Promise<SearchAnswer>}
 */
export function searchByImage(image, name, query, { signal, sent } = {}) {
  const form = new FormData();
  form.append("image", image, name);
  return withKey(() => posted(addressOf("v1/search", query), form, signal, sent));
}

/**
 * XMLHttpRequest, since fetch does not tell how far an upload is.
 * @param {string} address
 * @param {FormData} form
 * @param {AbortSignal} [signal]
 * @param {(share: number) => void} [sent]
 * @returns {Promise<any>}
 */
function posted(address, form, signal, sent) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    for (const [name, value] of Object.entries(authorization())) {
      request.setRequestHeader(name, value);
    }
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) sent?.(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status === 200) resolve(JSON.parse(request.responseText));
      else {
        const wait = request.getResponseHeader("Retry-After");
        reject(problem(request.status, request.responseText, wait));
      }
    });
    request.addEventListener("error", () => reject(away()));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

/**
 * @param {string} address
 * @param {RequestInit} options
 * @returns {Promise<Response>}
 */
function fetched(address, options) {
  return withKey(async () => {
    let answer;
    try {
      const headers = { ...options.headers, ...authorization() };
      answer = await fetch(address, { ...options, headers });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw away();
    }
    if (answer.ok) return answer;
    throw problem(answer.status, await answer.text(), answer.headers.get("Retry-After"));
  });
}

/**
 * Ask; where an API key is needed, ask the user for it and then once more.
 * @template T
 * @param {() => Promise<T>} ask
 * @returns {Promise<T>}
 */
async function withKey(ask) {
  for (;;) {
    const used = apiKey();
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 401) throw error;
      if (apiKey() !== used) continue; // another request was given one meanwhile
      asking ??= askForKey(used !== null).finally(() => (asking = null));
      if (!(await asking)) throw error;
    }
  }
}

/** @returns {Record<string, string>} */
function authorization() {
  const key = apiKey();
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

function away() {
  return new Problem(
    0,
    "The service does not answer",
    "Is spherequant serve still running, and this device still connected to it?",
  );
}

/**
 * @param {number} status
 * @param {string} body a problem document, or whatever stands between us and the service said
 * @param {string | null} wait
 */
function problem(status, body, wait) {
  /** @type {{ title?: unknown, detail?: unknown }} */
  let told = {};
  try {
    told = JSON.parse(body) ?? {};
  } catch {
    // No document of the service's.
  }
  const title = typeof told.title === "string" ? told.title : `The answer was an error (${status})`;
  const detail = typeof told.detail === "string" ? told.detail : "It came without an explanation.";
  const seconds = Number(wait);
  return new Problem(status, title, detail, wait && Number.isFinite(seconds) ? seconds : null);
}
