// A field a column of the table that the features come from.

import { ARRAYS } from "./model.js";
import { MOST_CHOICES, encoded, nearest } from "./columns.js";
import { rangeNote } from "./range.js";

const MOST_COLUMNS = 64;

/** Whether a table is small enough for a form. */
export function isSmall(schema) {
  return (
    schema?.columns.length <= MOST_COLUMNS &&
    schema.columns.every(({ categories = [], other = [] }) => categories.length + other.length <= MOST_CHOICES)
  );
}

/** The form in `root`; `changed(values)` is called with the features, or null. */
export function columnForm(root, hint, sidecar, changed) {
  const { schema } = sidecar;
  const fields = new Map(schema.columns.map((column) => [column.name, fieldOf(root, column)]));

  function update() {
    const row = new Map([...fields].map(([name, field]) => [name, textIn(field)]));
    const { values = null, problem = "" } = encoded(schema, row);
    for (const column of schema.columns) {
      const own = encoded({ columns: [column] }, row);
      fields.get(column.name).toggleAttribute("aria-invalid", Boolean(own.problem));
    }
    hint.textContent = values ? rangeNote(values, sidecar) : problem;
    changed(values && ARRAYS[sidecar.input.dtype].from(values));
  }

  root.addEventListener("input", update);
  return {
    fill(features) {
      const row = nearest(schema, features);
      fields.forEach((field, name) => (field.value = row.get(name)));
      update();
    },
  };
}

/** What cannot be read, such as half a date, is no missing value. */
function textIn(field) {
  return field.validity.badInput ? "unreadable" : field.value;
}

function fieldOf(root, column) {
  const label = document.createElement("label");
  const name = document.createElement("span");
  name.textContent = name.title = titleOf(column);
  const field = ["category", "boolean"].includes(column.kind) ? choice(column) : typed(column);
  label.append(name, field);
  root.append(label);
  return field;
}

function titleOf({ name, kind = "number", unit = "" }) {
  return kind === "date" ? `${name} (UTC)` : unit ? `${name} (${unit})` : name;
}

function typed({ kind = "number", unit, fill = null, missing = false }) {
  const field = document.createElement("input");
  const type = kind === "number" ? "number" : unit === "D" ? "date" : "datetime-local";
  Object.assign(field, { type, step: type === "datetime-local" ? "1" : "any" });
  field.placeholder = fill === null ? "" : missing ? "missing" : String(fill);
  return field;
}

function choice({ kind, categories = [], other = [], fill = null, missing = false }) {
  const field = document.createElement("select");
  const known = [...categories, ...other].map((category) => [`=${category}`, category]);
  const options = kind === "boolean" ? [["0", "no"], ["1", "yes"]] : [...known, ["?", "none of these"]];
  if (missing || fill !== null) {
    options.push(["", "missing"]);
  }
  for (const [value, text] of options) {
    field.append(Object.assign(document.createElement("option"), { value, textContent: text }));
  }
  return field;
}
