// What the page shows: prediction, bars, badge, facts, errors. Text only, never markup.

const ALL_CLASSES = 12; // more of them are shown as …
const TOP = 10; // … the most likely ones

const at = (id) => document.getElementById(id);

function element(tag, className, text) {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const RULED_OUT = "ruled out"; // a probability of exactly 0, where the activation gives such

/** The class that is decided for: at the threshold where a binary model has one. */
function decide(probs, threshold) {
  if (threshold !== null && threshold !== undefined && probs.length === 2) {
    return probs[1] >= threshold ? 1 : 0;
  }
  return probs.indexOf(Math.max(...probs));
}

/** Show probabilities; null for none. `busy` keeps a screen reader waiting for the pen's end. */
export function showProbabilities(probs, sidecar, { prompt, busy = false }) {
  const { class_names: names, threshold = null } = sidecar;
  const prediction = at("prediction");
  prediction.setAttribute("aria-busy", String(busy));
  const winner = probs && decide(probs, threshold);
  if (probs) {
    const name = element("strong", names[winner].length > 8 ? "long" : "", names[winner]);
    const share = element("span", "share", percent(probs[winner]));
    prediction.replaceChildren(name, " ", share);
    if (threshold !== null && probs.length === 2) {
      const note = `decides for ${names[1]} from ${percent(threshold)} on`;
      prediction.append(" ", element("small", "", note));
    }
  } else {
    prediction.replaceChildren(element("span", "prompt", prompt));
  }
  const shares = probs ?? names.map(() => 0);
  const order = names.map((_, k) => k);
  if (names.length > ALL_CLASSES) {
    order.sort((a, b) => shares[b] - shares[a]).splice(TOP);
  }
  const out = (k) => Boolean(probs && sidecar.activation) && shares[k] === 0;
  showBars(order, shares, names, winner, threshold, out);
  at("bars").classList.toggle("idle", !probs);
}

function showBars(order, shares, names, winner, threshold, out) {
  const bars = at("bars");
  while (bars.children.length < order.length) {
    const track = element("span", "track", "");
    track.append(element("span", "fill", ""));
    track.setAttribute("aria-hidden", "true");
    const bar = element("li", "", "");
    bar.append(element("span", "label", ""), track, element("span", "share", ""));
    bars.append(bar);
  }
  order.forEach((k, i) => {
    const bar = bars.children[i];
    const [label, track, share] = bar.children;
    Object.assign(label, { textContent: names[k], title: names[k] });
    share.textContent = out(k) ? RULED_OUT : percent(shares[k]);
    bar.classList.toggle("winner", k === winner);
    bar.classList.toggle("out", out(k));
    track.style.setProperty("--share", shares[k]);
    if (threshold !== null && names.length === 2 && k === 1) {
      track.classList.add("marked");
      track.style.setProperty("--threshold", threshold);
    }
  });
}

/** Show a verdict of the self-test. */
export function showBadge({ state, text, lines }) {
  const badge = at("badge");
  Object.assign(badge, { textContent: text, title: lines.join("\n") });
  badge.dataset.state = state;
  at("details").replaceChildren(...lines.map((line) => element("p", "", line)));
  at("distrust").hidden = state === "good";
  at("output").classList.toggle("distrusted", state !== "good");
}

/** One sentence; an empty one takes the last away. */
export function showError(sentence) {
  Object.assign(at("error"), { textContent: sentence, hidden: sentence === "" });
}

/** What the page runs, and with what. */
export function showFacts(model, sidecar) {
  const { dtype, shape, batch = "batch" } = sidecar.input;
  const size = model.bytes.length;
  const facts = [
    `model.onnx, ${size < 1e6 ? `${(size / 1e3).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`}`,
    `${dtype} [${batch}, ${shape.join(", ")}]`,
    `onnxruntime-web ${model.version}`,
    "runs in this browser: nothing is sent anywhere",
  ];
  at("facts").replaceChildren(...facts.map((fact) => element("li", "", fact)));
}
