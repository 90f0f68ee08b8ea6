// A table's row as features, by the schema in model.json: what smx_lightning.tables makes of it.
//
// A row is a Map of texts by column, as fields hold them; "" is a missing value. A category is itself
// with "=" before it, so that an empty one is none that is missing; "?" is none that is known.

export const MOST_CHOICES = 1000; // of a column: more are no list that anybody reads
// Milliseconds of a unit, or units of a millisecond: whole numbers, which round once.
const LONGER = { D: 86400000, s: 1000, ms: 1, us: 1, ns: 1 };
const SHORTER = { D: 1, s: 1, ms: 1, us: 1e3, ns: 1e6 };

/** How many features a column becomes. */
export function widthOf({ kind = "number", categories = [], other = [], missing = false }) {
  const own = kind === "category" ? categories.length + Number(other.length > 0) : 1;
  return own + Number(missing);
}

/** The features of a row, or what is wrong with it: {values} or {problem}. */
export function encoded({ columns }, row) {
  const values = [];
  for (const column of columns) {
    const made = featuresOf(column, row.get(column.name) ?? "");
    if (typeof made === "string") {
      return { problem: `expected ${made} as ${column.name}` };
    }
    values.push(...made);
  }
  return { values };
}

function featuresOf(column, text) {
  const { kind = "number", fill = null, missing = false } = column;
  const gap = text === "";
  const note = missing ? [Number(gap)] : [];
  if (kind === "category") {
    return [...oneHot(column, text.startsWith("=") ? text.slice(1) : null), ...note];
  }
  const value = gap ? fill : numberIn(column, text);
  if (value === null || !Number.isFinite(Math.fround(value))) {
    return { number: "a number", boolean: "yes or no", date: "a date" }[kind];
  }
  return [value, ...note];
}

function oneHot({ categories = [], other = [] }, category) {
  const places = categories.map((known) => Number(known === category));
  return other.length ? [...places, Number(other.includes(category))] : places;
}

/** What a field's text stands for, in the column's unit; dates are in UTC. */
function numberIn({ kind = "number", unit }, text) {
  if (kind !== "date") {
    return Number(text);
  }
  const milliseconds = Date.parse(text.includes("T") ? `${text}Z` : text);
  return (milliseconds * SHORTER[unit]) / LONGER[unit];
}

/** The row whose features are nearest to some numbers: an example of such a table. */
export function nearest({ columns }, features) {
  const row = new Map();
  let start = 0;
  for (const column of columns) {
    const width = widthOf(column);
    row.set(column.name, textOf(column, Array.from(features.slice(start, start + width))));
    start += width;
  }
  return row;
}

function textOf(column, features) {
  const { kind = "number", unit, categories = [], other = [], missing = false } = column;
  if (kind === "category") {
    const best = features.indexOf(Math.max(...features));
    const category = best < categories.length ? categories[best] : other[0];
    if (missing && best === features.length - 1) {
      return "";
    }
    return category === undefined ? "?" : `=${category}`;
  }
  if (missing && features[1] > 0.5) {
    return "";
  }
  if (kind === "boolean") {
    return features[0] > 0.5 ? "1" : "0";
  }
  return kind === "date" ? dateText(features[0], unit) : String(Number(features[0].toPrecision(6)));
}

function dateText(value, unit) {
  const date = new Date((value / SHORTER[unit]) * LONGER[unit]);
  if (Number.isNaN(date.getTime()) || !(date.getUTCFullYear() > 0 && date.getUTCFullYear() < 9999)) {
    return "2000-01-01" + (unit === "D" ? "" : "T00:00");
  }
  return date.toISOString().slice(0, unit === "D" ? 10 : 19);
}
