// Chapter 4: two of the three economies, counted: live pairs only, and the input's half of the gates once.

import { bars } from './chart.mjs';
import { percent, picture, rect, svg, text, whole } from './kit.mjs';

const BATCHES = {
  usual: [1, 2, 1, 1, 3, 1, 2, 1, 1, 2, 1, 1],
  single: Array(12).fill(1),
  crowded: [5, 8, 6, 7, 5, 8, 6, 8, 7, 5, 6, 8],
  mixed: [0, 5, 1, 8, 2, 0, 3, 1, 6, 1, 2, 4],
};

/** Classes of each image of a batch, at most as many as there are steps. */
export const lengths = (kind, batch, steps) => BATCHES[kind].slice(0, batch).map((count) => Math.min(count, steps));

/** Live pairs as [image, step], image by image: what is decoded. */
export const livePairs = (counts) =>
  counts.flatMap((count, image) => Array.from({ length: count }, (_, step) => [image, step]));

/** Multiplications at each position of the map for all steps: a kernel of `k`×`k`, `x` channels in, `d` of state. */
export function gateMultiplications(steps, x, d, k = 3) {
  return { written: 4 * d * k * k * steps * (x + d), hoisted: 4 * d * k * k * (x + steps * d) };
}

export const title = 'What is computed, and what need not be';
export const controls = [
  { name: 'kind', label: 'Classes in the images', value: 'usual',
    choice: [['usual', 'one or two, as in photographs'], ['single', 'one in each'], ['crowded', 'many, as in streets'],
      ['mixed', 'from none to many']] },
  { name: 'batch', label: 'Images in the batch', min: 1, max: 12, value: 8 },
  { name: 'steps', label: 'Steps that there are', min: 1, max: 8, value: 5 },
  { name: 'x', label: 'Channels of the input', min: 16, max: 512, step: 16, value: 192 },
  { name: 'd', label: 'Channels of the state', min: 16, max: 512, step: 16, value: 64 },
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
  const stage = picture(360, 24 + 17 * steps, 'A column for each image, a row for each step; filled where a pair is live.',
    text(50, 12, 'images', { class: 'small' }), names, cells);
  const { written, hoisted } = gateMultiplications(steps, x, d);
  const rows = bars('Bars: masks computed and multiplications for the gates, plain and economical.', [
    { name: 'masks, every pair', value: 1, words: whole(all), kind: 'off' },
    { name: 'masks, live pairs packed', value: live / all, words: whole(live) },
    { name: 'gates, multiplications per position, as written', value: 1, words: whole(written), kind: 'off' },
    { name: 'gates, the input\'s half computed once', value: hoisted / written, words: whole(hoisted) },
  ]);
  const says = `${live} of ${all} pairs are live: packing saves ${percent(1 - live / all)} of the masks. `
    + `Hoisting saves ${percent(1 - hoisted / written)} of the gates' multiplications, whatever the images show`
    + (steps === 1 ? ': with one step there is nothing to share.' : '.');
  return { stage: [stage, rows], says };
}
