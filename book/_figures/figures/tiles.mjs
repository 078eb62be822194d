// Chapter 11: the size at which the network sees a thing, in a shrunk image and in windows.

import { bars } from './chart.mjs';
import { fixed, whole } from './kit.mjs';

/** Side in pixels at which the network sees a thing: with the image shrunk to `network`, and in windows of that side. */
export function seen({ image, thing, network }) {
  const shrunk = Math.min(1, network / image);
  return { whole: thing * shrunk, tile: thing, times: 1 / shrunk };
}

const pixels = (value) => `${whole(value)} px`;
export const title = 'What is left of a small thing';
export const controls = [
  { name: 'image', label: 'Short side of the image', min: 100, max: 4000, step: 20, value: 1440, show: pixels },
  { name: 'thing', label: 'Side of the thing', min: 4, max: ({ image = 4000 }) => Math.min(200, image), value: 24, show: pixels },
  { name: 'network', label: 'Short side of the network input', min: 64, max: 1024, step: 16, value: 224, show: pixels },
  { name: 'stride', label: 'Mask stride', min: 2, max: 16, step: 2, value: 4, show: pixels },
];

export function draw(values) {
  const found = seen(values);
  const cells = { whole: found.whole / values.stride, tile: found.tile / values.stride };
  const most = Math.max(1, cells.whole, cells.tile);
  const words = (value) => `${fixed(value, 1)} mask cells per side`;
  const stage = bars('Bars: mask cells along the thing, in the shrunk image and in windows.', [
    { name: 'whole image, shrunk', value: cells.whole, words: words(cells.whole) },
    { name: 'windows (--tile)', value: cells.tile, words: words(cells.tile), kind: 'two' }], most);
  const lost = cells.whole < 1 ? ' At this size the thing covers less than one mask cell: no mask can show it.' : '';
  const says = found.times > 1
    ? `In windows the thing keeps its ${whole(found.tile)} pixels. The whole image is shrunk by a factor of `
      + `${fixed(found.times, 1)}, so the network sees the thing ${fixed(found.whole, 1)} pixels wide.${lost}`
    : `The image is not shrunk: windows change nothing.${lost}`;
  return { stage, says };
}
