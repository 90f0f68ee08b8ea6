// Classify rows in Node: node classify.mjs model.onnx rows.json, or [[1, 2, …], …] on stdin.
// Beside model.onnx lies model.json, which smx-export sidecar model.onnx writes.

import { promises, readFileSync } from "node:fs";

// Where this is not set, onnxruntime-node reports its use to its maker. It looks once, on loading;
// hence no static import, which would run before any line of this file.
process.env.ORT_DISABLE_TELEMETRY = "1";

const decode = (base64, Numbers = Float32Array) =>
  new Numbers(Uint8Array.from(Buffer.from(base64, "base64")).buffer);

/** A function from features, row after row, to log-probabilities. */
async function load(path, { input }) {
  const { default: ort } = await import("onnxruntime-node");
  const session = await ort.InferenceSession.create(path);
  return async (values, rows) => {
    const x = new ort.Tensor(values, [rows, ...input.shape]);
    return (await session.run({ [input.name]: x }, ["log_probs"])).log_probs.data;
  };
}

/** Whether this machine answers what the model answered when it was exported. */
async function passes(run, { selftest, class_names }, Numbers) {
  const { inputs, log_probs, probs, tolerance } = selftest; // probs where some of them are 0
  const expected = decode(probs ?? log_probs);
  const answers = await run(decode(inputs, Numbers), tolerance.length);
  const got = probs ? answers.map(Math.exp) : answers; // NaN is not near
  const near = (p, i) => Math.abs(got[i] - p) <= tolerance[Math.floor(i / class_names.length)];
  return expected.length > 0 && expected.length === got.length && expected.every(near);
}

async function main(path = "model.onnx", rowsPath = 0) {
  const beside = path.replace(/(\.[^./\\]*)?$/, ".json");
  const model = await promises.readFile(beside).then(JSON.parse).catch(() => null);
  if (!model?.selftest)
    throw new Error(`expected ${beside} as smx-export sidecar ${path} writes it, got no such file`);
  const Numbers = { float32: Float32Array, float64: Float64Array }[model.input.dtype];
  if (!Numbers || model.input.batch || !model.outputs.includes("log_probs"))
    throw new Error(`expected float inputs of any batch and log_probs in ${path}, got others`);
  const run = await load(path, model);
  if (!(await passes(run, model, Numbers)))
    throw new Error(`expected ${path} as it was exported, got one that fails its self-test`);
  const rows = JSON.parse(readFileSync(rowsPath)).map((row) => [row].flat(Infinity));
  const width = model.input.shape.reduce((product, side) => product * side, 1);
  const bad = rows.find((row) => row.length !== width || !row.every(Number.isFinite));
  if (bad)
    throw new Error(`expected rows of ${width} numbers, got ${JSON.stringify(bad).slice(0, 50)}`);
  const x = Numbers.from(rows.flat());
  const probs = (await run(x, rows.length)).map(Math.exp);
  const { class_names: names, threshold } = model;
  const missing = probs.findIndex(Number.isNaN);
  if (missing >= 0)
    throw new Error(`expected numbers, got overflow in row ${Math.floor(missing / names.length)}`);
  const [low, high] = model.input_range ?? [-Infinity, Infinity]; // in training
  const far = (high - low) * (model.input_shape.length > 1 ? 0.5 : 4);
  const stray = x.find((value) => value < low - far || value > high + far);
  if (stray !== undefined)
    console.error(`warning: trained on ${low} to ${high}, got ${stray}; check the scale`);
  for (let row = 0; row < rows.length; row++) {
    const p = probs.subarray(row * names.length, (row + 1) * names.length);
    const label = threshold === null ? p.indexOf(Math.max(...p)) : Number(p[1] >= threshold);
    console.log(`${names[label]}\t${p[label].toFixed(6)}`);
  }
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(`classify: ${error.message.split("\n")[0]}`);
  process.exitCode = 1;
});
