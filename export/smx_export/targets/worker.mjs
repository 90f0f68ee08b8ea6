// Runs an ONNX file for javascript.py, in node (`node worker.mjs URL`) and in a browser alike.
// It posts its last answer to bridge.py and the reply is the next question, one line of JSON and
// then raw bytes: the model first, then inputs. Where no question came yet the reply is empty.

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  uint8: Uint8Array,
  int8: Int8Array,
  int32: Int32Array,
  int64: BigInt64Array,
};
const BLOCK = 5; // milliseconds: Chromium's clock ticks ten times in one

let ort;
let session;

async function load({ ort: url, data }) {
  const module = await import(url);
  ort = module.default ?? module;
  ort.env.wasm.numThreads = 1; // more would need a page that is isolated from other origins
  session = await ort.InferenceSession.create(new Uint8Array(data));
  return message({});
}

async function run({ dtype, shape, data }) {
  const results = await session.run(feeds(dtype, shape, data));
  const outputs = session.outputNames.map((name) => ({ name, tensor: results[name] }));
  const described = outputs.map(({ name, tensor }) => (
    { name, dtype: tensor.type, shape: tensor.dims }
  ));
  return message({ outputs: described }, outputs.map(({ tensor }) => tensor.data));
}

async function time({ dtype, shape, data, runs }) {
  const input = feeds(dtype, shape, data);
  const block = async (size) => {
    const start = performance.now();
    for (let i = 0; i < size; i++) await session.run(input);
    return performance.now() - start;
  };
  let size = 1;
  while (await block(size) < BLOCK) size *= 2; // warms up, too
  const times = [];
  for (let i = 0; i < runs; i++) times.push(await block(size) / size);
  return message({ milliseconds: times.sort((a, b) => a - b)[runs >> 1] });
}

function feeds(dtype, shape, data) {
  if (!(dtype in ARRAYS)) throw new TypeError(`no tensor of ${dtype} can be made`);
  return { [session.inputNames[0]]: new ort.Tensor(dtype, new ARRAYS[dtype](data), shape) };
}

function message(head, arrays = []) {
  return new Blob([JSON.stringify(head), "\n", ...arrays]);
}

function parsed(buffer) {
  const bytes = new Uint8Array(buffer);
  const end = bytes.indexOf(10); // the first newline: JSON has none
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  return { ...head, data: buffer.slice(end + 1) }; // a copy, and so aligned for any typed array
}

async function answered(question) {
  try {
    if (!session) return await load(question);
    return await (question.runs ? time(question) : run(question));
  } catch (error) {
    return message({ error: String(error).split("\n")[0] });
  }
}

const server = globalThis.process?.argv[2] ?? location.origin;
for (let answer = ""; ;) {
  const reply = await fetch(server, { method: "POST", body: answer }).catch((gone) => {
    globalThis.close?.(); // Python is gone: the last window ends a browser, the error ends node
    throw gone;
  });
  const buffer = await reply.arrayBuffer();
  answer = buffer.byteLength ? await answered(parsed(buffer)) : "";
}
