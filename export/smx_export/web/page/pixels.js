// From a picture of any size to the numbers that the model takes.

import { ARRAYS } from "./model.js";

const LEAST_SIDE = 4; // what is narrower is a table's row, not a picture
const MARGIN = 1 / 32; // of the frame, on either side: digits and the like fill theirs
const LEAST_INK = 1 / 3; // of the pad: a dot stays a dot

/** Height, width and channels of an input shape, or null where it is no picture. */
export function pictureLayout(shape) {
  const sides = [...shape];
  let channels = 1;
  let channelsFirst = false;
  if (sides.length === 3 && [1, 3].includes(sides[2]) && !isChannelsFirst(sides)) {
    channels = sides.pop();
  } else if (sides.length === 3 && [1, 3].includes(sides[0])) {
    channels = sides.shift();
    channelsFirst = true;
  }
  const [height, width] = sides;
  if (sides.length !== 2 || height < LEAST_SIDE || width < LEAST_SIDE) {
    return null;
  }
  return { height, width, channels, channelsFirst };
}

function isChannelsFirst([first, , last]) {
  return [1, 3].includes(first) && last >= LEAST_SIDE;
}

/** The part of the pad, in the model's proportions, that has the ink in its middle. */
export function boxAround(ink, pad, { height, width }) {
  const least = (LEAST_INK * pad.width) / width;
  const inkScale = Math.max(ink.width / width, ink.height / height);
  const scale = Math.max(inkScale, least) / (1 - 2 * MARGIN); // pad pixels to one of the model's
  return {
    x: ink.x + ink.width / 2 - (scale * width) / 2,
    y: ink.y + ink.height / 2 - (scale * height) / 2,
    width: scale * width,
    height: scale * height,
  };
}

/** The smallest box in the model's proportions that holds a whole picture. */
export function boxOf(picture, { height, width }) {
  const scale = Math.max(picture.width / width, picture.height / height);
  return {
    x: (picture.width - scale * width) / 2,
    y: (picture.height - scale * height) / 2,
    width: scale * width,
    height: scale * height,
  };
}

/**
 * The part `box` of an ImageData as bytes (height, width, channels): each is the average of the
 * area that it covers; beyond the picture is black.
 */
export function areaAverage(picture, box, layout, invert = false) {
  const { height, width, channels } = layout;
  const across = shares(box.x, box.width, width, picture.width);
  const down = shares(box.y, box.height, height, picture.height);
  const sums = new Float64Array(height * width * channels);
  for (let row = 0; row < height; row++) {
    down[row].weights.forEach((share, i) => {
      const line = 4 * picture.width * (down[row].first + i);
      for (let column = 0; column < width; column++) {
        const { first, weights } = across[column];
        const at = (row * width + column) * channels;
        for (let j = 0; j < weights.length; j++) {
          const weight = share * weights[j];
          const source = line + 4 * (first + j);
          for (let channel = 0; channel < channels; channel++) {
            const value = level(picture.data, source, channel, channels);
            sums[at + channel] += weight * (invert ? 255 - value : value);
          }
        }
      }
    });
  }
  return Uint8ClampedArray.from(sums);
}

/** A colour, or the luminance (ITU-R BT.601) where the model takes grey. */
function level(data, at, channel, channels) {
  return channels === 3
    ? data[at + channel]
    : 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
}

/** Which pixels 0 … size − 1 lie in each of `count` equal parts of a line, and by how much. */
function shares(start, length, count, size) {
  const step = length / count;
  return Array.from({ length: count }, (_, part) => {
    const from = start + part * step;
    const to = from + step;
    const first = Math.max(0, Math.floor(from));
    const weights = [];
    for (let i = first; i < Math.min(size, Math.ceil(to)); i++) {
      weights.push((Math.min(to, i + 1) - Math.max(from, i)) / step);
    }
    return { first, weights };
  });
}

/** Bytes (height, width, channels) in the order, range and dtype that the model takes. */
export function toInput(bytes, layout, sidecar) {
  const { height, width, channels, channelsFirst } = layout;
  const ordered = new Uint8Array(bytes.length);
  bytes.forEach((byte, i) => {
    const pixel = Math.floor(i / channels);
    ordered[channelsFirst ? (i % channels) * height * width + pixel : i] = byte;
  });
  if (sidecar.input.dtype === "uint8") {
    return ordered;
  }
  const [low, high] = sidecar.input_range ?? [0, 255];
  return ARRAYS[sidecar.input.dtype].from(ordered, (byte) => low + ((high - low) * byte) / 255);
}

/** Bytes (height, width, channels) for a canvas. */
export function toImageData(bytes, { height, width, channels }) {
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < height * width; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * pixel + channel] = bytes[channels * pixel + (channel % channels)];
    }
    image.data[4 * pixel + 3] = 255;
  }
  return image;
}
