// Chapter 4: what two optimisations save: only live pairs are decoded, and the input's part of the gates is hoisted.

import { bars } from './chart.mjs';
import { percent, picture, rect, svg, text, whole } from './kit.mjs';

const BATCHES = {
  usual: [1, 2, 1, 1, 3, 1, 2, 1, 1, 2, 1, 1],
  single: Array(12).fill(1),
  crowded: [5, 8, 6, 7, 5, 8, 6, 8, 7, 5, 6, 8],
  mixed: [0, 5, 1, 8, 2, 0, 3, 1, 6, 1, 2, 4],
};

/** Number of classes in each image of a batch, at most `steps`. */
export const lengths = (kind, batch, steps) => BATCHES[kind].slice(0, batch).map((count) => Math.min(count, steps));

/** Live pairs as [image, step], image by image: only these are decoded. */
export const livePairs = (counts) =>
  counts.flatMap((count, image) => Array.from({ length: count }, (_, step) => [image, step]));

/** Multiplications per position of the map, over all steps: `k`×`k` kernels, `x` input and `d` state channels. */
export function gateMultiplications(steps, x, d, k = 3) {
  return { written: 4 * d * k * k * steps * (x + d), hoisted: 4 * d * k * k * (x + steps * d) };
}

export const title = 'What is computed, and what is saved';
export const controls = [
  { name: 'kind', label: 'Classes per image', value: 'usual',
    choice: [['usual', 'few, as in photographs'], ['single', 'one'], ['crowded', 'many, as in a street'],
      ['mixed', 'from none to many']] },
  { name: 'batch', label: 'Batch size', min: 1, max: 12, value: 8 },
  { name: 'steps', label: 'Maximum steps', min: 1, max: 8, value: 5 },
  { name: 'x', label: 'Input channels', min: 16, max: 512, step: 16, value: 192 },
  { name: 'd', label: 'State channels', min: 16, max: 512, step: 16, value: 64 },
];

export function draw({ kind, batch, steps, x, d }) {
  const counts = lengths(kind, batch, steps);
  const live = livePairs(counts).length;
  const all = batch * steps;
  const cells = counts.flatMap((count, image) => Array.from({ length: steps }, (_, step) => {
    const [left, top] = [50 + 25 * image, 20 + 17 * step];
    return step < count
      ? [rect(left, top, 22, 14, { class: 'one' }), text(left + 11, top + 11, step + 1, { class: 'small onto', 'text-anchor': 'middle' })]
      : [rect(left, top, 22, 14, { class: 'surface' }), rect(left, top, 22, 14, { class: 'frame' }),
        svg('line', { x1: left + 3, y1: top + 11, x2: left + 19, y2: top + 3, class: 'rule' })];
  }));
  const names = Array.from({ length: steps }, (_, step) => text(4, 31 + 17 * step, `step ${step + 1}`, { class: 'small' }));
  const stage = picture(360, 24 + 17 * steps, 'One column per image, one row per step; live pairs are filled.',
    text(50, 12, 'images', { class: 'small' }), names, cells);
  const { written, hoisted } = gateMultiplications(steps, x, d);
  const rows = bars('Bars: masks and gate multiplications, before and after.', [
    { name: 'masks, all pairs', value: 1, words: whole(all), kind: 'off' },
    { name: 'masks, live pairs only', value: live / all, words: whole(live) },
    { name: 'gate multiplications per position', value: 1, words: whole(written), kind: 'off' },
    { name: 'gate multiplications, input part hoisted', value: hoisted / written, words: whole(hoisted) },
  ]);
  const says = `${live} of ${all} pairs are live: packing saves ${percent(1 - live / all)} of the masks. `
    + `Hoisting saves ${percent(1 - hoisted / written)} of the gates' multiplications, whatever the images show`
    + (steps === 1 ? ': with one step there is nothing to reuse.' : '.');
  return { stage: [stage, rows], says };
}
