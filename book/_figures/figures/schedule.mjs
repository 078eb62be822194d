// Chapter 7: the factor of the learning rate, and the share of the random start in the averaged weights.

import { chart, legend } from './chart.mjs';
import { percent, whole } from './kit.mjs';

/** Factor of the learning rate at update `step` (from 0), after a share `progress` of the training. */
export function schedule(step, progress, warmup, power = 0.9) {
  return Math.min(1, (step + 1) / Math.max(1, warmup)) * (1 - Math.min(1, progress)) ** power;
}

/** Decay of the averaged weights after update `step` (from 0). */
export const decayAt = (step, most, rising) => (rising ? Math.min(most, (1 + step) / (10 + step)) : most);

/** Share of the random start in the averaged weights, before the first update and after each. */
export function startLeft(updates, most, rising) {
  const left = [1];
  for (let step = 0; step < updates; step += 1) left.push(left[step] * decayAt(step, most, rising));
  return left;
}

const updatesOf = (power) => Math.round(10 ** power / 10) * 10;

export const title = 'The learning rate and the averaged weights';
export const controls = [
  { name: 'power', label: 'Number of updates', min: 2, max: 4.4, step: 0.1, value: 2.5, show: (power) => whole(updatesOf(power)) },
  { name: 'warmup', label: 'Warm-up updates', min: 0, max: 500, step: 10, value: 100 },
  { name: 'most', label: 'Maximum decay of the average', value: 0.998,
    choice: [[0.9, '0.9'], [0.99, '0.99'], [0.998, '0.998 (recseg)'], [0.9999, '0.9999']] },
  { name: 'rising', label: 'the decay rises with the updates, as in the formula', toggle: true, value: false },
];

export function draw({ power, warmup, most, rising }) {
  const updates = updatesOf(power);
  const left = startLeft(updates, most, rising);
  const places = Array.from({ length: 201 }, (_, k) => Math.min(updates, Math.round((k / 200) * updates)));
  const curves = [
    { kind: 'one', name: 'learning rate', points: places.map((k) => [k, schedule(k, k / updates, warmup)]) },
    { kind: 'two', name: 'random start left', points: places.map((k) => [k, left[k]]) },
  ];
  const stage = chart({
    alt: 'Two curves over the updates: the factor of the learning rate, and the share of the start in the averaged weights.',
    x: { min: 0, max: updates, label: 'update', ticks: [0, 0.25, 0.5, 0.75, 1].map((f) => [f * updates, whole(f * updates)]) },
    y: { min: 0, max: 1, label: '', ticks: [0, 0.25, 0.5, 0.75, 1].map((f) => [f, f]) },
    curves,
  });
  const peak = Math.max(...Array.from({ length: updates }, (_, k) => schedule(k, k / updates, warmup)));
  const end = left[updates];
  const words = end > 0.05 ? 'The averaged model is still partly noise, however good the other one is.'
    : 'The start hardly matters any more.';
  const says = `The learning rate reaches ${percent(peak)} of its nominal value. After ${whole(updates)} updates, `
    + `${end < 5e-4 ? 'less than 0.1 %' : percent(end, 1)} of the averaged weights is still the random start. ${words}`;
  return { stage: [legend(curves), stage], says };
}
