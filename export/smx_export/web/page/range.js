// Whether numbers are in the units of the training data, as far as their range tells.

const PICTURE_MARGIN = 0.5; // of the range: pixels are bounded, other features have tails
const MARGIN = 4;

/** What a feature is called, by its place. */
export function nameOf({ feature_names: names }) {
  return (i) => names?.[i] ?? `x${i + 1}`;
}

/** A sentence about the first entry far outside the range, "" where there is none. */
export function rangeNote(values, sidecar) {
  const { input, input_range: range, input_shape: shape } = sidecar;
  if (!range || input.dtype === "uint8") {
    return ""; // nobody knows it, or every byte is a pixel
  }
  const [low, high] = range;
  const margin = (high - low) * (shape.length > 1 ? PICTURE_MARGIN : MARGIN);
  const at = values.findIndex((value) => value < low - margin || value > high + margin);
  return at < 0
    ? ""
    : `${nameOf(sidecar)(at)} lies far outside the training data, ${low} to ${high}: check the scale`;
}
