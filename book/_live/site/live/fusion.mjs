// From steps to one label map, as recseg/inference/steps.py does: each mask's odds, weighted with the survival of the stop.

import { stretch } from './pixels.mjs';

/** log(1 + e^x) without overflow. */
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

export const best = (scores) => scores.indexOf(Math.max(...scores));

/**
 * Labels (rows · columns, 0 is background) of the steps of a sequence: each {mask, scores, stop}.
 * Masks are stretched first and compared afterwards: no label is ever blended.
 */
export function fuse(steps, rows, columns) {
  const labels = new Uint8Array(rows * columns);
  const most = new Float32Array(rows * columns); // what a mask has to exceed: even odds, which background has
  let survived = 0; // logarithm of the probability that the sequence gets this far
  for (const { mask, scores, stop } of steps) {
    survived -= softplus(stop);
    const label = best(scores) + 1;
    stretch(mask, rows, columns).data.forEach((logit, at) => {
      const odds = logit + survived;
      if (odds > most[at]) {
        most[at] = odds;
        labels[at] = label;
      }
    });
  }
  return labels;
}
