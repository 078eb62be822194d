// Chapter 1: a label map, split into a sequence of steps and put together again.

import { VOC_CLASSES, VOID, painted } from './classes.mjs';
import { grid, picture, rect, text } from './kit.mjs';

const LETTERS = { '.': 0, o: VOID, b: 3, k: 7, c: 8, d: 12, h: 13, p: 15, s: 18 };
const drawn = (rows) => rows.map((row) => [...row].map((letter) => LETTERS[letter]));

export const SCENES = {
  cat: drawn([
    '................', '...oo....oo.....', '..oco...oco.....', '..occooocco.....', '..occccccco...oo',
    '..occccccco..oco', '...occccco..oco.', '....occccoooco..', '....occcccccco..', '....oooooooooo..',
  ]),
  sofa: drawn([
    '................', '................', '......oo........', '..oooodoooooo...', '..oosdddddoso...',
    '..oosoddddoso...', '..osssdoddsso...', '..ossssssssso...', '..oso.....oso...', '................',
  ]),
  street: drawn([
    '.ooo......oo....', '.obbo....oppo...', '..oo.....oppo...', '....oo..ohppho..', '...ohhooohppho..',
    '..ohhhhhhhhhho..', '...oohhhhhhoo...', 'oooo.oho.oho.ooo', 'kkko.oho.oho.okk', 'kkko..o...o..okk',
  ]),
};

/** As recseg.training.targets.to_sequence: classes by ascending label; of too many, the largest stay and the rest becomes void. */
export function toSequence(labels, maxSteps) {
  const areas = new Map();
  for (const label of labels.flat()) if (label !== 0 && label !== VOID) areas.set(label, (areas.get(label) ?? 0) + 1);
  const bySize = [...areas.keys()].sort((a, b) => areas.get(b) - areas.get(a) || a - b);
  const [kept, dropped] = [bySize.slice(0, maxSteps).sort((a, b) => a - b), bySize.slice(maxSteps)];
  const map = labels.map((row) => row.map((label) => (dropped.includes(label) ? VOID : label)));
  const steps = kept.map((label) => ({ label, area: areas.get(label), mask: map.map((row) => row.map((x) => x === label)) }));
  return { steps, dropped, valid: map.map((row) => row.map((label) => label !== VOID)) };
}

/** The label map that the first `count` steps describe. */
export function toLabels({ steps, valid }, count = steps.length) {
  return valid.map((row, r) => row.map((known, c) => {
    if (!known) return VOID;
    return steps.slice(0, count).find(({ mask }) => mask[r][c])?.label ?? 0;
  }));
}

const length = ({ scene = 'street', most = 5 }) => toSequence(SCENES[scene], most).steps.length;

export const title = 'Take a label map apart, step by step';
export const controls = [
  { name: 'scene', label: 'Image', value: 'street',
    choice: [['cat', 'a cat'], ['sofa', 'a dog on a sofa'], ['street', 'a rider, a car, a bird']] },
  { name: 'most', label: 'Maximum steps', min: 1, max: 5, value: 5 },
  { name: 'step', label: 'Step', min: 0, max: (values) => length(values) + 1, value: 1 },
];

export function draw({ scene, most, step }) {
  const labels = SCENES[scene];
  const sequence = toSequence(labels, most);
  const { steps, dropped } = sequence;
  const now = Math.min(step, steps.length);
  const current = step <= steps.length ? steps[step - 1] : undefined;
  const rebuilt = toLabels(sequence, now);
  const names = (list) => list.map((label) => VOC_CLASSES[label]).join(', ');
  const boxes = VOC_CLASSES.map((_, label) => {
    const there = labels.flat().includes(label);
    const attributes = there ? painted(label) : { class: 'surface' };
    return [rect(4 + 16.7 * label, 152, 14, 14, attributes), rect(4 + 16.7 * label, 152, 14, 14, { class: 'frame' })];
  });
  const stage = picture(360, 192, 'The label map, what the steps so far describe, and the maps of a dense answer.',
    text(4, 12, 'the label map'), grid(4, 18, 10.5, labels, painted),
    text(188, 12, now < steps.length ? `after ${now} of ${steps.length} steps` : 'after all steps'),
    grid(188, 18, 10.5, rebuilt, (label, r, c) =>
      ({ ...painted(label), 'fill-opacity': current && label !== VOID && !current.mask[r][c] ? 0.35 : 1 })),
    text(4, 144, 'a dense answer: one map per label'), boxes,
    text(4, 184, `${new Set(labels.flat().filter((label) => label && label !== VOID)).size + 1} of ${VOC_CLASSES.length} `
      + 'are not empty', { class: 'small' }));
  let says = `Step 0: every valid pixel is still background. Steps to come: ${steps.length}.`;
  if (current) says = `Step ${step}: "${VOC_CLASSES[current.label]}" (label ${current.label}), a mask of ${current.area} pixels.`;
  if (step > steps.length) says = `Stop after ${steps.length} of at most ${most} steps: ${names(steps.map(({ label }) => label))}.`;
  if (step >= steps.length) {
    says += dropped.length ? ` No step was left for ${names(dropped)}: those pixels have become void.`
      : ' The two maps are equal, pixel by pixel, including void.';
  }
  return { stage, says };
}
