// Numbers typed in: a field a feature, or one text where there are many.

import { ARRAYS } from "./model.js";
import { nameOf, rangeNote } from "./range.js";

const MOST_FIELDS = 64;

/** The form in `root`; `changed(values, problem)` is called with one of them null. */
export function featureForm(root, hint, sidecar, changed) {
  const count = sidecar.input.shape.reduce((product, side) => product * side, 1);
  const { dtype } = sidecar.input;
  const isByte = dtype === "uint8";
  const names = nameOf(sidecar);
  const fields =
    count <= MOST_FIELDS ? numberFields(root, count, isByte, names) : [textField(root, count)];

  function read() {
    const texts = fields.length === count ? fields.map((field) => field.value) : split(fields[0].value);
    const values = texts.map((text) => (text.trim() === "" ? NaN : Number(text)));
    const bad = values.findIndex((value) => !fits(value, dtype));
    if (fields.length === count) {
      fields.forEach((field, i) => field.toggleAttribute("aria-invalid", !fits(values[i], dtype)));
    }
    if (texts.length !== count) {
      return { problem: `expected ${count} numbers, got ${texts.length}` };
    }
    const kind = isByte ? "a whole number from 0 to 255" : "a number";
    return bad >= 0 ? { problem: `expected ${kind} as ${names(bad)}` } : { values };
  }

  function update() {
    const { values = null, problem = "" } = read();
    hint.textContent = values ? rangeNote(values, sidecar) : problem;
    changed(values && ARRAYS[dtype].from(values));
  }

  root.addEventListener("input", update);
  return {
    fill(values) {
      const texts = Array.from(values, dtype === "float64" ? String : shortest);
      fields.forEach((field, i) => {
        field.value = fields.length === count ? texts[i] : texts.join(", ");
      });
      update();
    },
  };
}

/** Float32 turns what is too large into infinity. */
function fits(value, dtype) {
  return dtype === "uint8"
    ? Number.isInteger(value) && value >= 0 && value <= 255
    : Number.isFinite(Math.fround(value));
}

function numberFields(root, count, isByte, names) {
  return Array.from({ length: count }, (_, i) => {
    const label = document.createElement("label");
    const name = document.createElement("span");
    name.textContent = name.title = names(i);
    const field = document.createElement("input");
    Object.assign(field, { type: "number", step: isByte ? "1" : "any", value: "0" });
    if (isByte) {
      Object.assign(field, { min: "0", max: "255" });
    }
    label.append(name, field);
    root.append(label);
    return field;
  });
}

function textField(root, count) {
  const label = document.createElement("label");
  label.className = "wide";
  const name = document.createElement("span");
  name.textContent = `${count} numbers, separated by commas`;
  const field = document.createElement("textarea");
  Object.assign(field, { rows: 10, spellcheck: false });
  label.append(name, field);
  root.append(label);
  return field;
}

function split(text) {
  const trimmed = text.trim().replace(/,$/, "");
  return trimmed === "" ? [] : trimmed.split(/[\s,;]+/);
}

/** The fewest digits that give the same float32. */
function shortest(value) {
  for (let digits = 1; digits < 9; digits++) {
    const text = Number(value.toPrecision(digits));
    if (Math.fround(text) === Math.fround(value)) {
      return String(text);
    }
  }
  return String(value);
}
