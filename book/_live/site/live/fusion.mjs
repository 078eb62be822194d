// From steps to one label map, as in recseg/inference/steps.py: the odds of each mask, weighted by its survival.

import { stretch } from './pixels.mjs';

/** log(1 + e^x) without overflow. */
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

export const best = (scores) => scores.indexOf(Math.max(...scores));

/**
 * Labels (rows · columns, 0 is background) of the steps of a sequence: each {mask, scores, stop}.
 * Masks are resized first and compared afterwards: labels are never interpolated.
 */
export function fuse(steps, rows, columns) {
  const labels = new Uint8Array(rows * columns);
  const most = new Float32Array(rows * columns); // log-odds that a mask has to exceed; 0 for background
  let survived = 0; // logarithm of the probability that the sequence reaches this step
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
