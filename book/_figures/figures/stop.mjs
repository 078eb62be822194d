// Chapter 12: where a sequence ends, and how an uncertain stop shrinks later masks.

import { bars } from './chart.mjs';
import { percent, table } from './kit.mjs';

/** Probability that the sequence reaches each step, from the probabilities of the stop before each. */
export const survival = (stops) => {
  let left = 1;
  return stops.map((stop) => (left *= 1 - stop));
};

/** Number of steps before the first whose stop exceeds the threshold. */
export const stepsKept = (stops, threshold = 0.5) => {
  const end = stops.findIndex((stop) => stop > threshold);
  return end < 0 ? stops.length : end;
};

/** Mask probability that a pixel must exceed to belong to a step in the label map: m + log a > 0. */
export const needed = (a) => 1 / (1 + a);

const slider = (name, label, value) => ({ name, label, min: 0, max: 1, step: 0.01, value, show: (p) => percent(p) });
export const title = 'Stopping, and the cost of an uncertain stop';
export const controls = [
  slider('threshold', 'Stop threshold', 0.5),
  slider('stop1', 'Stop before step 1', 0.02), slider('stop2', 'Stop before step 2', 0.4),
  slider('stop3', 'Stop before step 3', 0.3), slider('stop4', 'Stop before step 4', 0.9),
];

export function draw({ threshold, stop1, stop2, stop3, stop4 }) {
  const stops = [stop1, stop2, stop3, stop4];
  const kept = stepsKept(stops, threshold);
  const reached = survival(stops);
  const rows = stops.map((stop, k) => [`step ${k + 1}`, percent(stop), percent(reached[k], 1),
    k < kept ? percent(needed(reached[k]), 1) : 'not taken']);
  const drawing = bars('Bars: the survival of each step.', stops.map((_, k) => ({
    name: `step ${k + 1}${k < kept ? '' : ', not taken'}`, value: reached[k], words: `survival ${percent(reached[k], 1)}`,
    kind: k < kept ? 'one' : 'off' })));
  const last = kept ? reached[kept - 1] : 1;
  const says = `${kept} of ${stops.length} steps are taken. `
    + (kept ? `In the label map, a pixel of the last one needs a mask probability above ${percent(needed(last), 1)}; `
      + `the higher this is above ${percent(0.5)}, the smaller the mask.` : 'The label map is all background.')
    + (threshold === 0.5 ? '' : ` (recseg itself stops at ${percent(0.5)}.)`);
  return { stage: [drawing, table('The steps', [['', 'stop', 'survival', 'pixel needs'], ...rows])], says };
}
