// The page: load the model, test it, then answer what is drawn, chosen or typed.

import { drawingPad } from "./draw.js";
import { featureForm } from "./features.js";
import { columnForm, isSmall } from "./fields.js";
import { decode, firstLine, loadModel, loadSidecar } from "./model.js";
import { pictureLayout, toImageData, toInput } from "./pixels.js";
import { selfTest } from "./selftest.js";
import { showBadge, showError, showFacts, showProbabilities } from "./view.js";

const at = (id) => document.getElementById(id);

/** Shows answers, the latest question's last; `ask(null)` shows none. */
function answers(model, sidecar, prompt) {
  let newest = 0;
  return async function ask(values, busy = false) {
    const question = ++newest;
    let probs = null;
    try {
      probs = values && Array.from((await model.run(values, 1)).probs);
    } catch (error) {
      showError(`The model could not answer: ${firstLine(error)}.`);
    }
    if (question === newest) {
      Object.assign(window.smx, { lastInput: Array.from(values ?? []), lastProbs: probs ?? [] });
      const missing = probs?.some(Number.isNaN);
      const said = missing ? "No answer: these numbers are too large" : prompt;
      showProbabilities(missing ? null : probs, sidecar, { prompt: said, busy });
    }
  };
}

function offerPad(model, sidecar, layout) {
  const ask = answers(model, sidecar, "Draw, or choose a picture");
  const seen = Object.assign(at("seen"), { width: layout.width, height: layout.height });
  let planned = false;
  const pad = drawingPad(at("pad"), layout, () => {
    if (!planned) {
      planned = true;
      requestAnimationFrame(update); // a pen reports more often than a screen shows
    }
  });

  function update() {
    planned = false;
    at("placeholder").hidden = !pad.isEmpty();
    at("invert").parentElement.hidden = !pad.hasPhoto();
    at("fit").parentElement.hidden = pad.hasPhoto();
    const bytes = pad.bytes({ fit: at("fit").checked, invert: at("invert").checked });
    seen.getContext("2d").putImageData(toImageData(bytes, layout), 0, 0);
    ask(pad.isEmpty() ? null : toInput(bytes, layout, sidecar), pad.isDrawing());
  }

  async function choose(file) {
    try {
      pad.show(await createImageBitmap(file));
      showError("");
    } catch {
      showError(`${file.name} could not be read as a picture; choose a PNG, JPEG or WebP file.`);
    }
  }

  document.documentElement.style.setProperty("--aspect", layout.width / layout.height);
  at("picture").hidden = false;
  at("clear").addEventListener("click", () => (pad.clear(), showError("")));
  at("fit").addEventListener("change", update);
  at("invert").addEventListener("change", update);
  at("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // so that the same file can be chosen again
    if (file) {
      choose(file);
    }
  });
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault(); // or the browser would leave the page for the picture
      at("frame").classList.toggle("dragging", name === "dragenter" || name === "dragover");
      const file = name === "drop" && event.dataTransfer.files[0];
      if (file) {
        choose(file);
      }
    });
  }
  update();
}

function offerFields(model, sidecar) {
  const table = isSmall(sidecar.schema) && sidecar.input.dtype !== "uint8";
  const ask = answers(model, sidecar, table ? "Fill in the row" : "Fill in the numbers");
  const form = (table ? columnForm : featureForm)(at("features"), at("hint"), sidecar, (values) => ask(values));
  const examples = decode(sidecar.selftest.inputs, sidecar.selftest.dtype);
  const rows = sidecar.selftest.tolerance.length;
  const size = examples.length / rows;
  let next = 0;
  const fill = () => {
    form.fill(examples.subarray(next * size, (next + 1) * size));
    next = (next + 1) % rows;
  };
  at("example").addEventListener("click", fill);
  at("table").hidden = false;
  fill();
}

async function start() {
  at("starting").remove();
  try {
    const sidecar = await loadSidecar();
    document.title = at("name").textContent = sidecar.name;
    const model = await loadModel(sidecar);
    showFacts(model, sidecar);
    const verdict = await selfTest(model, sidecar);
    showBadge(verdict);
    window.smx.badge = { state: verdict.state, text: verdict.text };
    if (model.refused) {
      throw new Error(model.refused);
    }
    document.querySelector("main").hidden = false;
    const layout = pictureLayout(sidecar.input_shape);
    if (layout) {
      offerPad(model, sidecar, layout);
    } else {
      offerFields(model, sidecar);
    }
  } catch (error) {
    showError(firstLine(error));
    if (window.smx.badge.state === "pending") {
      showBadge({ state: "bad", text: "FAILED: the model does not load", lines: [firstLine(error)] });
      window.smx.badge = { state: "bad", text: at("badge").textContent };
    }
  }
}

window.smx = { lastInput: [], lastProbs: [], badge: { state: "pending", text: "loading …" } };
window.smx.ready = start();
