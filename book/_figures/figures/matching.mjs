// Chapter 5: the cost of a model's steps for each order of the targets, and the order that matching finds.

import { VOC_CLASSES, painted } from './classes.mjs';
import { fixed, grid, percent, picture, rect, svg, text } from './kit.mjs';

const WIDTH = 12;
const HEIGHT = 8;
const box = (top, left, height, width) => (row, column) =>
  row >= top && row < top + height && column >= left && column < left + width;
export const TARGETS = [ // by ascending label; the dog is the largest
  { label: 8, inside: box(1, 0, 3, 4) },
  { label: 12, inside: box(4, 3, 4, 6) },
  { label: 15, inside: box(0, 9, 7, 3) },
];
const SAID = [2, 0, 1]; // the model's steps: person, cat, dog
const pixels = (f) => Array.from({ length: HEIGHT * WIDTH }, (_, k) => f(Math.floor(k / WIDTH), k % WIDTH));
export const truth = (target) => pixels((row, column) => Number(TARGETS[target].inside(row, column)));

/** Mask logits (3 × 96) and class probabilities (3 × 3). `sure` scales the logits; `doubt` mixes step 2's answer into step 1. */
export function answer(sure, doubt) {
  const own = SAID.map((target) => truth(target));
  const masks = own.map((mask, step) => mask.map((value, k) => {
    const share = step === 0 ? (1 - doubt) * value + doubt * own[1][k] : value;
    return sure * (2 * share - 1);
  }));
  const top = 1 / (1 + 2 * Math.exp(-sure)); // a softmax over three logits: sure, 0, 0
  const named = (target) => TARGETS.map((_, k) => (k === target ? top : (1 - top) / 2));
  const probabilities = SAID.map((target, step) => named(target).map((p, k) =>
    (step === 0 ? (1 - doubt) * p + doubt * named(SAID[1])[k] : p)));
  return { masks, probabilities };
}

/** BCE + Dice − p(class) of a mask (logits) against a target. */
export function cost(logits, target, probability) {
  let [bce, overlap, area, sum] = [0, 0, 0, 0];
  logits.forEach((logit, k) => {
    const p = 1 / (1 + Math.exp(-logit));
    bce += Math.max(logit, 0) - logit * target[k] + Math.log1p(Math.exp(-Math.abs(logit)));
    overlap += p * target[k];
    area += target[k];
    sum += p;
  });
  return bce / logits.length + 1 - (2 * overlap + 1) / (sum + area + 1) - probability;
}

export function costs(sure, doubt) {
  const { masks, probabilities } = answer(sure, doubt);
  return masks.map((mask, step) => TARGETS.map((_, target) => cost(mask, truth(target), probabilities[step][target])));
}

export const ORDERS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
export const total = (matrix, order) => order.reduce((sum, target, step) => sum + matrix[step][target], 0);
/** The first order with the lowest total cost. */
export const match = (matrix) => ORDERS.reduce((best, order) => (total(matrix, order) < total(matrix, best) ? order : best));

const names = (order) => order.map((target) => VOC_CLASSES[TARGETS[target].label]).join(', ');
const area = [...TARGETS.keys()].sort((a, b) => truth(b).reduce((x, y) => x + y) - truth(a).reduce((x, y) => x + y));
const remark = (order) => (String(order) === '0,1,2' ? ' (order: class)' : String(order) === String(area) ? ' (order: area)' : '');

export const title = 'Which target is each step compared with?';
export const controls = [
  { name: 'order', label: 'Order of the targets', value: 0,
    choice: ORDERS.map((order, index) => [index, names(order) + remark(order)]) },
  { name: 'sure', label: 'How sure the model is', min: 0, max: 6, step: 0.5, value: 3, show: (value) => value.toFixed(1) },
  { name: 'doubt', label: 'Share of cat in step 1', min: 0, max: 1, step: 0.05, value: 0, show: percent },
];

export function draw({ order: index, sure, doubt }) {
  const order = ORDERS[index];
  const matrix = costs(sure, doubt);
  const best = match(matrix);
  const { masks } = answer(sure, doubt);
  const rows = (values) => Array.from({ length: HEIGHT }, (_, row) => values.slice(row * WIDTH, (row + 1) * WIDTH));
  const steps = masks.map((mask, step) => [text(2, 50 + 66 * step, `step ${step + 1}`, { class: 'small' }),
    grid(40, 20 + 66 * step, 6.6, rows(mask), (logit) => ({ class: 'one', 'fill-opacity': 1 / (1 + Math.exp(-logit)) }))]);
  const heads = TARGETS.map(({ label }, target) => [text(190 + 68 * target, 8, VOC_CLASSES[label], { 'text-anchor': 'middle', class: 'small' }),
    grid(172 + 68 * target, 13, 3, rows(truth(target)), (value) => (value ? painted(label) : null))]);
  const cells = matrix.map((line, step) => line.map((value, target) => {
    const [x, y] = [160 + 68 * target, 44 + 56 * step];
    return [rect(x, y, 60, 44, { class: 'surface' }), rect(x, y, 60, 44, { class: 'frame' }),
      text(x + 30, y + 27, fixed(value), { 'text-anchor': 'middle', class: order[step] === target ? 'strong' : '' }),
      order[step] === target && rect(x, y, 60, 44, { class: 'box two' }),
      best[step] === target && svg('circle', { cx: x + 51, cy: y + 9, r: 4, class: 'one' })];
  }));
  const stage = picture(360, 226, 'The masks of three steps, and the cost of each against three targets.',
    steps, heads, cells, text(160, 222, 'frame: this order, dot: matching', { class: 'small' }));
  const [given, least] = [total(matrix, order), total(matrix, best)];
  const says = given - least > 1e-9
    ? `The order ${names(order)} has a total cost of ${fixed(given)}. For the same answer, matching finds ${names(best)} `
      + `at ${fixed(least)}.`
    : `The order ${names(order)} has a total cost of ${fixed(given)}, and no order costs less.`
      + (String(order) === String(best) ? ' Matching finds it.' : ` Matching finds ${names(best)} at the same cost.`);
  return { stage, says };
}
