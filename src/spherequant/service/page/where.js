// @ts-check
/** Filters as the one SQL expression that the service takes as `where`. */

/**
 * @typedef {import("./state.js").Filters} Filters
 * @typedef {import("./api.js").Column} Column
 */

/**
 * The expression for which the wanted items are true; empty without filters.
 * @param {Filters} filters
 * @param {Column[]} columns those that the index has
 * @returns {string}
 */
export function whereOf(filters, columns) {
  const conditions = [];
  if (filters.labels.length) {
    conditions.push(`array_has_any(labels, [${filters.labels.map(text).join(", ")}])`);
  }
  for (const [column, values] of Object.entries(filters.values)) {
    conditions.push(`${name(column)} IN (${values.map(text).join(", ")})`);
  }
  for (const [column, { from, to }] of Object.entries(filters.ranges)) {
    // A fraction is no value of a column of whole numbers.
    const whole = columns.some((known) => known.name === column && known.type === "int64");
    if (from !== null) conditions.push(`${name(column)} >= ${whole ? Math.ceil(from) : from}`);
    if (to !== null) conditions.push(`${name(column)} <= ${whole ? Math.floor(to) : to}`);
  }
  return conditions.join(" AND ");
}

/** @param {string} value */
function text(value) {
  return `'${value.replaceAll("'", "''")}'`;
}

/** A column's name; none that the index allows holds a backtick. @param {string} column */
function name(column) {
  return `\`${column.replaceAll("`", "")}\``;
}

/**
 * The filters in words.
 * @param {Filters} filters
 * @returns {string[]}
 */
export function inWords(filters) {
  const words = [];
  if (filters.labels.length) words.push(`labels: ${filters.labels.join(" or ")}`);
  for (const [column, values] of Object.entries(filters.values)) {
    words.push(`${column}: ${values.join(" or ")}`);
  }
  for (const [column, { from, to }] of Object.entries(filters.ranges)) {
    const bounds = [from !== null && `from ${from}`, to !== null && `to ${to}`];
    words.push(`${column} ${bounds.filter(Boolean).join(" ")}`);
  }
  return words;
}
