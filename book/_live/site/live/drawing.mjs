// Drawing over an image: masks, the label map, attention maps.

import { stretch } from './pixels.mjs';

const LONG_SIDE = [480, 800]; // pixels of the stage; small images are enlarged, so that their masks have smooth edges
const ATTENTION = [255, 122, 26];
const GAP = 2;

/** The image on a canvas of the size at which it is shown. */
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

/** `label` where a mask's logits are above 0, at the size of the stage. */
export function inside(mask, { width, height }, label) {
  return Uint8Array.from(stretch(mask, height, width).data, (logit) => (logit > 0 ? label : 0));
}

/**
 * Draw the image on the stage with each label's colour over it. Outlines are bright inside and dark outside, so that
 * they show on any photograph; with `dimmed`, the rest is darkened.
 */
export function paint(canvas, background, labels, palette, { dimmed = false } = {}) {
  const { width, height } = background;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  if (!labels) {
    context.drawImage(background, 0, 0);
    return;
  }
  const image = background.getContext('2d').getImageData(0, 0, width, height);
  const { data } = image;
  const thick = Math.max(2, Math.round(Math.max(width, height) / 250)); // of the outline
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const label = labels[at];
      const edge =
        (x >= thick && labels[at - thick] !== label) ||
        (x < width - thick && labels[at + thick] !== label) ||
        (y >= thick && labels[at - thick * width] !== label) ||
        (y < height - thick && labels[at + thick * width] !== label);
      const share = label ? (edge ? 1 : 0.45) : edge ? 0.75 : dimmed ? 0.45 : 0;
      const colour = palette[label];
      for (let channel = 0; channel < 3; channel++) {
        const value = label ? colour[channel] : 0;
        data[at * 4 + channel] += share * (value - data[at * 4 + channel]);
      }
    }
  }
  context.putImageData(image, 0, 0);
}

/** Draw a label map alone; label 0 stays transparent. */
export function paintMap(canvas, { labels, width, height }, palette) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  labels.forEach((label, at) => {
    if (label) image.data.set([...palette[label], 255], at * 4);
  });
  context.putImageData(image, 0, 0);
}

/** Draw attention maps, each over the image in grey: the more orange, the higher the weight. */
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
    const { data } = image;
    stretch(map, height, width).data.forEach((share, at) => {
      const grey = 0.2 * data[at * 4] + 0.4 * data[at * 4 + 1] + 0.1 * data[at * 4 + 2]; // and darker
      for (let channel = 0; channel < 3; channel++) {
        data[at * 4 + channel] = grey + share * (ATTENTION[channel] - grey);
      }
    });
    context.putImageData(image, x, y);
  });
}
