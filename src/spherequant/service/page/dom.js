// @ts-check
/** Elements made from plain values. Text is only ever set as text, never as HTML. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element that the page's HTML holds.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return /** @type {T} */ (found);
}

/**
 * A new element.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean | EventListener | null | undefined>} [given]
 *   attributes; `onclick` and the like are listeners; false, null and undefined leave one out
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/**
 * One of the icons that the page's HTML holds.
 * @param {"image" | "similar" | "close" | "back" | "next"} name
 * @returns {SVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/**
 * A button that does something on this page.
 * @param {string} text
 * @param {() => void} act
 * @param {string} [style] a class
 * @returns {HTMLButtonElement}
 */
export function button(text, act, style = "") {
  return make("button", { type: "button", class: style || null, onclick: () => act() }, text);
}
