// Chapter 13: one image, scored by the slot protocol of the published work, as a set of classes, and by mIoU.

import { VOC_CLASSES } from './classes.mjs';
import { bars } from './chart.mjs';
import { percent, table } from './kit.mjs';

const TRUE = [3, 12, 15]; // bird, dog, person
const EACH = 20; // pixels of each; the background has room for a false mask
const START = { 3: 0, 12: 20, 15: 40, 1: 60, 16: 60 };

/** An image as one row of 120 pixels, and a model's steps in its own order: { label, mask }. */
export function answer({ bird, dog, person, extra, quality, order }) {
  const truth = Array.from({ length: 120 }, (_, k) => TRUE[Math.floor(k / EACH)] ?? 0);
  const named = [bird && 3, dog && 12, person && 15, extra].filter(Boolean).sort((a, b) => a - b);
  if (order === 'descending') named.reverse();
  const pixels = Math.round(EACH * quality);
  const steps = named.map((label) => ({ label, mask: truth.map((_, k) => k >= START[label] && k < START[label] + pixels) }));
  return { truth, steps };
}

const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
const iou = (a, b) => a.filter((x, k) => x && b[k]).length / a.filter((x, k) => x || b[k]).length;

/** Slot accuracy (ascending, and in the model's own order), slot IoU over hits only, F1 of the set, mIoU of the label map. */
export function score({ truth, steps }) {
  const there = [...new Set(truth)].filter(Boolean).sort((a, b) => a - b);
  const own = steps.map(({ label }) => label);
  const ascending = [...own].sort((a, b) => a - b);
  const hits = there.filter((label, slot) => ascending[slot] === label);
  const maskOf = (label) => steps.find((step) => step.label === label).mask;
  const fused = truth.map((_, k) => steps.find(({ mask }) => mask[k])?.label ?? 0); // masks do not overlap here
  const labels = [...new Set(truth)];
  return {
    accuracy: hits.length / there.length,
    ownOrder: there.filter((label, slot) => own[slot] === label).length / there.length,
    slotIou: mean(hits.map((label) => iou(maskOf(label), truth.map((x) => x === label)))),
    f1: (2 * own.filter((label) => there.includes(label)).length) / (own.length + there.length),
    miou: mean(labels.map((label) => iou(fused.map((x) => x === label), truth.map((x) => x === label)))),
    slots: there.map((label, slot) => ({ label, guess: ascending[slot] ?? null })),
  };
}

export const title = 'One image of a bird, a dog and a person, scored in three ways';
export const controls = [
  { name: 'bird', label: 'names the bird (3)', toggle: true, value: true },
  { name: 'dog', label: 'names the dog (12)', toggle: true, value: true },
  { name: 'person', label: 'names the person (15)', toggle: true, value: true },
  { name: 'extra', label: 'False class', value: 1,
    choice: [[0, 'none'], [1, 'aeroplane (1)'], [16, 'pottedplant (16)']] },
  { name: 'quality', label: 'IoU of the masks', min: 0.1, max: 1, step: 0.1, value: 0.8, show: (value) => percent(value) },
  { name: 'order', label: 'Order of the steps', value: 'ascending',
    choice: [['ascending', 'by ascending label'], ['descending', 'by descending label']] },
];

export function draw(values) {
  const found = score(answer(values));
  const name = (label) => (label === null ? 'empty' : `${VOC_CLASSES[label]} (${label})`);
  const rows = found.slots.map(({ label, guess }, slot) =>
    [`slot ${slot + 1}`, name(label), name(guess), label === guess ? 'hit' : 'miss']);
  const bar = (words, value, kind) =>
    ({ name: words, value: value ?? 0, words: value === null ? 'no hits, no score' : percent(value, 1), kind });
  const drawing = bars('Bars: the scores of this answer.', [
    bar('slot accuracy', found.accuracy), bar('slot accuracy, in the model\'s own order', found.ownOrder),
    bar('slot IoU, hits only', found.slotIou), bar('label-set F1', found.f1, 'three'),
    bar('mIoU, including background', found.miou, 'two')]);
  const hits = found.slots.filter(({ label, guess }) => label === guess).length;
  const says = `${hits} of ${found.slots.length} slots are hits, so slot accuracy is ${percent(found.accuracy)}; `
    + `${found.slotIou === null ? 'slot IoU is undefined' : `slot IoU is ${percent(found.slotIou)}`}, `
    + `label-set F1 ${percent(found.f1)}, mIoU ${percent(found.miou)}.`
    + (values.extra === 1 && hits === 0 && found.f1 > 0.5 ? ' One false class with a low label has shifted all others out of their slots.' : '');
  return { stage: [table('Slots, by ascending label', [['', 'true', 'named', ''], ...rows]), drawing], says };
}
