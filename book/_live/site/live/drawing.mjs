// What is drawn: a mask over the image, the label map, attention maps, and the channels of the state as small maps.

import { stretch } from './pixels.mjs';

const LONG_SIDE = [480, 960]; // pixels of the stage: small images grow, and so their masks get smooth edges
const NEGATIVE = [43, 123, 199];
const POSITIVE = [226, 111, 36];
const TILE = 28; // pixels of one channel's map, at most
const GAP = 2;

/** A canvas of the size at which an image is shown. */
export function staged(image) {
  const long = Math.max(image.width, image.height);
  const factor = Math.min(Math.max(long, LONG_SIDE[0]), LONG_SIDE[1]) / long;
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(image.width * factor));
  canvas.height = Math.max(1, Math.round(image.height * factor));
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Where a mask's logits are above 0, at the size of the stage. */
export function inside(mask, { width, height }) {
  return stretch(mask, height, width).data.map((logit) => (logit > 0 ? 1 : 0));
}

/** Put the image on the stage, each pixel with the label's colour over it; with `dimmed`, the rest gets darker. */
export function paint(canvas, background, labels, palette, { dimmed }) {
  const { width, height } = background;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  if (!labels) {
    context.drawImage(background, 0, 0);
    return;
  }
  const image = background.getContext('2d').getImageData(0, 0, width, height);
  const { data } = image;
  const thick = Math.max(1, Math.round(width / 320)); // of the outline
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const label = labels[at];
      const edge =
        (x >= thick && labels[at - thick] !== label) || (y >= thick && labels[at - thick * width] !== label);
      for (let channel = 0; channel < 3; channel++) {
        const value = data[at * 4 + channel];
        if (edge) data[at * 4 + channel] = 255;
        else if (label) data[at * 4 + channel] = 0.4 * value + 0.6 * palette[label][channel];
        else if (dimmed) data[at * 4 + channel] = 0.55 * value;
      }
    }
  }
  context.putImageData(image, 0, 0);
}

/** Attention maps, each over the image in grey: the more orange, the more of its weight is there. */
export function attended(canvas, background, maps) {
  const across = Math.ceil(Math.sqrt(maps.length));
  const [width, height] = [background.width, background.height].map((side) => Math.floor(side / across));
  canvas.width = across * (width + GAP) - GAP;
  canvas.height = Math.ceil(maps.length / across) * (height + GAP) - GAP;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  maps.forEach((map, k) => {
    const [x, y] = [(k % across) * (width + GAP), Math.floor(k / across) * (height + GAP)];
    context.drawImage(background, x, y, width, height);
    const image = context.getImageData(x, y, width, height);
    stretch(map, height, width).data.forEach((share, at) => {
      const [red, green, blue] = image.data.subarray(at * 4);
      const grey = 0.2 * red + 0.4 * green + 0.1 * blue; // and darker
      POSITIVE.forEach((value, channel) => (image.data[at * 4 + channel] = (1 - share) * grey + share * value));
    });
    context.putImageData(image, x, y);
  });
}

/** The largest size of a value in channels of maps. */
export const largest = (maps) => maps.reduce((most, { data }) => data.reduce((a, b) => Math.max(a, Math.abs(b)), most), 0);

/** Channels side by side; a value of ± `scale` has the full colour, and 0 none. */
export function mosaic(canvas, maps, scale) {
  const [{ height, width }] = maps;
  const cell = Math.max(1, Math.floor(TILE / Math.max(height, width)));
  const across = Math.ceil(Math.sqrt((maps.length * height) / width));
  const down = Math.ceil(maps.length / across);
  canvas.width = across * (width * cell + GAP) - GAP;
  canvas.height = down * (height * cell + GAP) - GAP;
  const context = canvas.getContext('2d');
  maps.forEach(({ data }, k) => {
    const x0 = (k % across) * (width * cell + GAP);
    const y0 = Math.floor(k / across) * (height * cell + GAP);
    context.fillStyle = 'rgb(128 128 128 / 0.12)'; // a tile of zeros can be seen as one
    context.fillRect(x0, y0, width * cell, height * cell);
    data.forEach((value, at) => {
      const [red, green, blue] = value < 0 ? NEGATIVE : POSITIVE;
      context.fillStyle = `rgb(${red} ${green} ${blue} / ${Math.min(1, Math.abs(value) / (scale || 1))})`;
      context.fillRect(x0 + (at % width) * cell, y0 + Math.floor(at / width) * cell, cell, cell);
    });
  });
}
