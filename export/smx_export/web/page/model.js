// model.json, model.onnx and onnxruntime-web: all from this folder, wherever it is served.

const RUNTIME = "./ort.wasm.bundle.min.mjs";
const WASM = "./ort-wasm-simd-threaded.wasm";
const AGAIN = "write the page again with smx-export web";

/** The bytes of a file beside this one. */
async function bytesOf(name) {
  let reason;
  try {
    const response = await fetch(new URL(name, import.meta.url));
    if (response.ok) {
      return new Uint8Array(await response.arrayBuffer());
    }
    reason = `HTTP ${response.status}`;
  } catch (error) {
    reason = error.message;
  }
  throw new Error(`Could not load ${name.replace("./", "")} (${reason}); ${AGAIN}.`);
}

/** The sidecar: what the page knows of the model. */
export async function loadSidecar() {
  const text = new TextDecoder().decode(await bytesOf("./model.json"));
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`model.json is damaged; ${AGAIN}.`);
  }
}

/** The model, ready to run: `run(values, rows)` gives its log-probabilities and probabilities. */
export async function loadModel(sidecar) {
  if (!sidecar.outputs?.includes("log_probs")) {
    throw new Error(`The model has no output log_probs, which this page needs; ${AGAIN}.`);
  }
  const [bytes, wasm, ort] = await Promise.all([
    bytesOf("./model.onnx"),
    bytesOf(WASM),
    import(RUNTIME).catch((error) => {
      throw new Error(`Could not load onnxruntime-web (${error.message}); ${AGAIN}.`);
    }),
  ]);
  // Handed over, or onnxruntime would look for the file by a URL of its own; one thread needs no
  // worker and no special headers.
  Object.assign(ort.env.wasm, { wasmBinary: wasm.buffer, numThreads: 1 });
  ort.env.logLevel = "error";
  const model = {
    bytes,
    version: ort.env.versions.web ?? ort.env.versions.common,
    sha256: await sha256(bytes),
    refused: null,
    run: null,
  };
  try {
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    model.run = oneAtATime((values, rows) => run(ort, session, sidecar, values, rows));
  } catch (error) {
    model.refused = `onnxruntime-web does not take model.onnx (${firstLine(error)}); ${AGAIN}.`;
  }
  return model;
}

async function run(ort, session, sidecar, values, rows) {
  const { name, dtype, shape, batch = rows } = sidecar.input; // batch: it takes no other number
  const wanted = ["log_probs", "probs"].filter((output) => sidecar.outputs.includes(output));
  const width = values.length / rows;
  const answers = { log_probs: [], probs: [] };
  for (let row = 0; row < rows; row += batch) {
    const block = new ARRAYS[dtype](batch * width); // zeros fill up the last one
    block.set(values.subarray(row * width, (row + batch) * width));
    const tensor = new ort.Tensor(dtype, block, [batch, ...shape]);
    const outputs = await session.run({ [name]: tensor }, wanted);
    for (const output of wanted) {
      const { data } = outputs[output];
      answers[output].push(data.subarray(0, (data.length / batch) * Math.min(batch, rows - row)));
    }
  }
  const logProbs = joined(answers.log_probs);
  const probs = answers.probs.length ? joined(answers.probs) : Float32Array.from(logProbs, Math.exp);
  return { logProbs, probs };
}

/** The numbers of several arrays in one. */
function joined(parts) {
  const all = new Float32Array(parts.reduce((length, part) => length + part.length, 0));
  let start = 0;
  for (const part of parts) {
    all.set(part, start);
    start += part.length;
  }
  return all;
}

/** A session takes no second run before the first one ends. */
function oneAtATime(work) {
  let last = Promise.resolve();
  return (...job) => {
    const result = last.then(() => work(...job));
    last = result.catch(() => {});
    return result;
  };
}

/** Hexadecimal SHA-256, or null where the browser offers none: it does on https and localhost. */
async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    return null;
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What holds numbers of the dtypes that a model may take. */
export const ARRAYS = { float32: Float32Array, float64: Float64Array, uint8: Uint8Array };

/** Numbers of base64 in little endian, as every browser's typed arrays are. */
export function decode(base64, dtype) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new ARRAYS[dtype](bytes.buffer);
}

export function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0].slice(0, 200);
}
