// Is what this browser computes the model that was exported? Every vector is run and compared.

import { decode, firstLine } from "./model.js";

/** The verdict: `{state: "good" | "bad", text, lines}`, lines being the details. */
export async function selfTest(model, sidecar) {
  const hash = checkHash(model, sidecar);
  if (model.refused) {
    const lines = [hash.line, model.refused];
    return { state: "bad", text: "FAILED: the model does not load", lines };
  }
  let rows;
  try {
    rows = await checkRows(model, sidecar);
  } catch (error) {
    const lines = [hash.line, firstLine(error)];
    return { state: "bad", text: "FAILED: the self-test could not run", lines };
  }
  const failed = rows.filter((row) => row.failed);
  const largest = Math.max(...rows.map((row) => row.ratio));
  const lines = [hash.line, `largest error of a vector: ${inWords(largest)}`, ...explain(failed)];
  if (failed.length || hash.failed) {
    const reasons = [
      failed.length && `${failed.length} of ${rows.length} vectors differ`,
      hash.failed && "the file is not the one that was exported",
    ];
    return { state: "bad", text: `FAILED: ${reasons.filter(Boolean).join("; ")}`, lines };
  }
  const unchecked = hash.checked ? "" : " (hash not checked)";
  const text = `verified: ${rows.length} vectors, largest error ${inWords(largest)}${unchecked}`;
  return { state: "good", text, lines };
}

function checkHash(model, sidecar) {
  if (model.sha256 === null) {
    const line = "hash not checked: the browser offers SHA-256 on https and localhost only";
    return { checked: false, failed: false, line };
  }
  const failed = model.sha256 !== sidecar.sha256;
  const line = failed
    ? `SHA-256 of model.onnx: expected ${sidecar.sha256}, got ${model.sha256}`
    : `SHA-256 of model.onnx as expected: ${model.sha256}`;
  return { checked: true, failed, line };
}

/** Largest error of each vector, as a multiple of its tolerance. */
async function checkRows(model, sidecar) {
  const { dtype, inputs, log_probs, probs, tolerance } = sidecar.selftest;
  const count = tolerance.length;
  // Of an activation that rules classes out, probabilities are compared: log 0 has no distance.
  const want = decode(probs ?? log_probs, "float32");
  const classes = sidecar.class_names.length;
  if (count === 0 || want.length !== count * classes) {
    throw new Error("model.json holds no complete self-test; write the page again");
  }
  const { logProbs } = await model.run(decode(inputs, dtype), count);
  const got = probs ? logProbs.map(Math.exp) : logProbs;
  if (got.length !== want.length) {
    throw new Error(`expected ${want.length} log-probabilities, got ${got.length}`);
  }
  return tolerance.map((limit, row) => {
    let ratio = 0;
    for (let k = row * classes; k < (row + 1) * classes; k++) {
      // Equal infinities have no difference; NaN has no order, and must not win as "not larger".
      const error = got[k] === want[k] ? 0 : Math.abs(got[k] - want[k]) / limit;
      ratio = Number.isNaN(error) ? Infinity : Math.max(ratio, error);
      if (ratio === Infinity) {
        break;
      }
    }
    return { row, ratio, failed: !(ratio <= 1) };
  });
}

function explain(failed, shown = 5) {
  const lines = failed.slice(0, shown).map(({ row, ratio }) => `vector ${row}: ${inWords(ratio)}`);
  return failed.length > shown ? [...lines, `… and ${failed.length - shown} more`] : lines;
}

function inWords(ratio) {
  if (!Number.isFinite(ratio)) {
    return "not a number, or infinite";
  }
  const digits = ratio < 10 ? ratio.toFixed(2) : ratio.toPrecision(3);
  return ratio > 1 ? `${digits} times the tolerance` : `${digits} of tolerance`;
}
