// The pad: white ink on black, as MNIST has it, or a picture from a file.

import { areaAverage, boxAround, boxOf } from "./pixels.js";

const SIDE = 560; // pixels of the longer side, about: sharp on a phone, quick to average
const PEN = 0.095; // of the shorter side
const LARGEST = 1600; // pixels of a picture's longer side; larger ones are scaled to it first

/** The pad on a canvas; `changed()` is called after every change of what is on it. */
export function drawingPad(canvas, layout, changed) {
  const cell = Math.ceil(SIDE / Math.max(layout.height, layout.width));
  canvas.width = cell * layout.width;
  canvas.height = cell * layout.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pen = PEN * Math.min(canvas.width, canvas.height);
  let ink = null; // the corners of what was drawn
  let photo = null; // ImageData
  let last = null; // the pen's last point, while it is down

  function clear() {
    context.fillStyle = "black";
    context.fillRect(0, 0, canvas.width, canvas.height);
    ink = photo = null;
  }

  function pointAt(event) {
    const shown = canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - shown.left) * canvas.width) / shown.width,
      y: ((event.clientY - shown.top) * canvas.height) / shown.height,
    };
  }

  function stroke(from, to) {
    Object.assign(context, { strokeStyle: "white", lineWidth: pen, lineCap: "round" });
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y + 0.01); // a line of no length is not drawn: a tap leaves a dot
    context.stroke();
    ink ??= { left: canvas.width, top: canvas.height, right: 0, bottom: 0 };
    for (const { x, y } of [from, to]) {
      ink.left = Math.max(0, Math.min(ink.left, x - pen / 2));
      ink.top = Math.max(0, Math.min(ink.top, y - pen / 2));
      ink.right = Math.min(canvas.width, Math.max(ink.right, x + pen / 2));
      ink.bottom = Math.min(canvas.height, Math.max(ink.bottom, y + pen / 2));
    }
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || last) {
      return; // another button, or a second finger
    }
    canvas.setPointerCapture(event.pointerId);
    if (photo) {
      clear();
    }
    last = { id: event.pointerId, ...pointAt(event) };
    stroke(last, last);
    changed();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== last?.id) {
      return;
    }
    const events = event.getCoalescedEvents?.() ?? [];
    for (const step of events.length ? events : [event]) {
      const point = pointAt(step);
      stroke(last, point);
      Object.assign(last, point);
    }
    changed();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId === last?.id) {
        last = null;
        changed();
      }
    });
  }
  clear();

  return {
    clear: () => (clear(), changed()),
    isEmpty: () => !ink && !photo,
    isDrawing: () => last !== null,
    hasPhoto: () => photo !== null,

    /** Show a picture and use it instead of a drawing. */
    show(bitmap) {
      clear();
      photo = pixelsOf(bitmap);
      const box = boxOf(bitmap, layout);
      const scale = canvas.width / box.width;
      const [x, y] = [-box.x * scale, -box.y * scale];
      context.imageSmoothingEnabled = scale < 1;
      context.drawImage(bitmap, x, y, bitmap.width * scale, bitmap.height * scale);
      changed();
    },

    /** What the model sees, as bytes. */
    bytes({ fit, invert }) {
      if (photo) {
        return areaAverage(photo, boxOf(photo, layout), layout, invert);
      }
      const whole = { x: 0, y: 0, width: canvas.width, height: canvas.height };
      const { left, top, right, bottom } = ink ?? {};
      const drawn = right > left && bottom > top; // not beyond the edge
      const around = { x: left, y: top, width: right - left, height: bottom - top };
      const box = fit && drawn ? boxAround(around, canvas, layout) : whole;
      return areaAverage(context.getImageData(0, 0, whole.width, whole.height), box, layout);
    },
  };
}

/** A picture's pixels, on white where it is transparent. */
function pixelsOf(bitmap) {
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(scale * bitmap.width));
  const height = Math.max(1, Math.round(scale * bitmap.height));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}
