// Chapter 15: two things, two steps. What a given order teaches where images disagree about it, and what matching does.

import { chart, legend } from './chart.mjs';
import { percent } from './kit.mjs';

const log = (p) => -Math.log(Math.max(p, 1e-9));

/** Loss of both steps, where step 1 says thing A with probability `first` and step 2 the other, if A is to come first. */
export const ordered = (first) => 2 * log(first);
/** With targets in a given order: A first in a share `aFirst` of images that look alike. */
export const fixedLoss = (first, aFirst) => (aFirst && aFirst * ordered(first)) + (aFirst < 1 && (1 - aFirst) * ordered(1 - first));
/** Matching compares each step with the thing that it says rather (cost: −p), so the loss is the smaller of the two. */
export const matchedLoss = (first) => Math.min(ordered(first), ordered(1 - first));
/** The least that a given order leaves: the entropy of the order, once for each step. */
export const floor = (aFirst) => Number(fixedLoss(aFirst, aFirst));

export const title = 'Order of targets against matching';
export const controls = [
  { name: 'aFirst', label: 'Images whose list begins with A', min: 0, max: 1, step: 0.05, value: 0.5, show: (value) => percent(value) },
  { name: 'first', label: 'Step 1 says A with probability', min: 0.01, max: 0.99, step: 0.01, value: 0.5, show: (value) => percent(value) },
];

export function draw({ aFirst, first }) {
  const places = Array.from({ length: 99 }, (_, k) => (k + 1) / 100);
  const curves = [
    { kind: 'two', name: 'order given', points: places.map((p) => [p, fixedLoss(p, aFirst)]) },
    { kind: 'one', name: 'matched', points: places.map((p) => [p, matchedLoss(p)]) },
  ];
  const stage = chart({
    alt: 'Loss over what step 1 says: with a given order one valley that does not reach zero, with matching two that do.',
    x: { min: 0, max: 1, label: 'probability that step 1 says A', ticks: [0, 0.25, 0.5, 0.75, 1].map((p) => [p, percent(p)]) },
    y: { min: 0, max: 4, label: 'loss of both steps', ticks: [0, 1, 2, 3, 4].map((value) => [value, value]) },
    curves,
    marks: [{ x: first }, { x: first, y: Number(fixedLoss(first, aFirst)), kind: 'two' }, { x: first, y: matchedLoss(first), kind: 'one' }],
  });
  const sure = aFirst === 0 || aFirst === 1;
  const says = `Here the order given costs ${Number(fixedLoss(first, aFirst)).toFixed(2)}, matching ${matchedLoss(first).toFixed(2)}. `
    + (sure ? 'All lists agree, so the order can be learned: both have a valley at zero.'
      : `At its best the order given teaches step 1 to say A with ${percent(aFirst)}, and ${floor(aFirst).toFixed(2)} is left: something between A and B. `
        + 'Matching lets the model decide, and either decision costs nothing.');
  return { stage: [legend(curves), stage], says };
}
