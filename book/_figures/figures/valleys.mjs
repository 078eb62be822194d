// Chapter 15: two objects, two steps; the loss with a given order on which images disagree, and with matching.

import { chart, legend } from './chart.mjs';
import { percent } from './kit.mjs';

const log = (p) => -Math.log(Math.max(p, 1e-9));

/** Loss of both steps if A is to come first: step 1 gives A the probability `first`, and step 2 gives it to B. */
export const ordered = (first) => 2 * log(first);
/** Mean loss with a given order: A comes first in a share `aFirst` of images that look alike. */
export const fixedLoss = (first, aFirst) => (aFirst && aFirst * ordered(first)) + (aFirst < 1 && (1 - aFirst) * ordered(1 - first));
/** Matching pairs each step with its more probable object (cost: −p), so the loss is the smaller of the two. */
export const matchedLoss = (first) => Math.min(ordered(first), ordered(1 - first));
/** Minimum of the loss with a given order: the entropy of the order, once for each step. */
export const floor = (aFirst) => Number(fixedLoss(aFirst, aFirst));

export const title = 'Given order of targets, and matching';
export const controls = [
  { name: 'aFirst', label: 'Images with A first', min: 0, max: 1, step: 0.05, value: 0.5, show: (value) => percent(value) },
  { name: 'first', label: 'Probability of A at step 1', min: 0.01, max: 0.99, step: 0.01, value: 0.5, show: (value) => percent(value) },
];

export function draw({ aFirst, first }) {
  const places = Array.from({ length: 99 }, (_, k) => (k + 1) / 100);
  const curves = [
    { kind: 'two', name: 'given order', points: places.map((p) => [p, fixedLoss(p, aFirst)]) },
    { kind: 'one', name: 'matching', points: places.map((p) => [p, matchedLoss(p)]) },
  ];
  const stage = chart({
    alt: 'Loss over the probability of A at step 1: one valley with a given order, two valleys at zero with matching.',
    x: { min: 0, max: 1, label: 'probability of A at step 1', ticks: [0, 0.25, 0.5, 0.75, 1].map((p) => [p, percent(p)]) },
    y: { min: 0, max: 4, label: 'loss of both steps', ticks: [0, 1, 2, 3, 4].map((value) => [value, value]) },
    curves,
    marks: [{ x: first }, { x: first, y: Number(fixedLoss(first, aFirst)), kind: 'two' }, { x: first, y: matchedLoss(first), kind: 'one' }],
  });
  const sure = aFirst === 0 || aFirst === 1;
  const says = `Here the given order costs ${Number(fixedLoss(first, aFirst)).toFixed(2)}, matching ${matchedLoss(first).toFixed(2)}. `
    + (sure ? 'All lists agree, so the order can be learned: both have a valley at zero.'
      : `With the given order, the best is to give A a probability of ${percent(aFirst)} at step 1, and a loss of `
        + `${floor(aFirst).toFixed(2)} remains. With matching the model may decide, and either decision costs nothing.`);
  return { stage: [legend(curves), stage], says };
}
