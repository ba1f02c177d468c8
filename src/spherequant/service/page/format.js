// @ts-check
/** Numbers, bytes and times as people read them. */

const WHOLE = new Intl.NumberFormat("en");
const UNITS = ["bytes", "kB", "MB", "GB", "TB"];
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
/** @type {[number, Intl.RelativeTimeFormatUnit][]} */
const STEPS = [
  [60, "second"],
  [60, "minute"],
  [24, "hour"],
  [30, "day"],
  [12, "month"],
  [Infinity, "year"],
];

/** @param {number} value */
export function count(value) {
  return WHOLE.format(value);
}

/**
 * A number of things: "1 item", "1,797 items".
 * @param {number} value
 * @param {string} one
 * @param {string} [many]
 */
export function things(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** @param {number} value */
export function bytes(value) {
  if (value < 1000) return things(value, "byte");
  let unit = 0;
  // 999.5 would be shown as 1000.
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${Number(value.toPrecision(3))} ${UNITS[unit]}`;
}

/** @param {number} value */
export function score(value) {
  return value.toFixed(3);
}

/**
 * How long ago a moment was.
 * @param {string} moment RFC 3339
 * @param {number} [now] milliseconds since 1970
 */
export function ago(moment, now = Date.now()) {
  let value = (Date.parse(moment) - now) / 1000;
  for (const [size, unit] of STEPS) {
    if (Math.abs(value) < size) return AGO.format(Math.round(value), unit);
    value /= size;
  }
  return moment;
}

/**
 * A moment in the reader's own time zone and manner.
 * @param {string | number} moment RFC 3339, or milliseconds since 1970
 */
export function time(moment) {
  return new Date(moment).toLocaleString();
}

/**
 * A value of a metadata column.
 * @param {string | number | null} value
 */
export function plain(value) {
  return value == null ? "none" : String(value);
}

/** The last part of a key, which is what a file is called. @param {string} key */
export function nameOf(key) {
  return key.slice(key.lastIndexOf("/") + 1) || key;
}
