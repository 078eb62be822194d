// Chapter 10: what "mIoU" says of a perfect answer and of one that is black everywhere, by four rules.

import { bars } from './chart.mjs';
import { percent, whole } from './kit.mjs';

/**
 * Scores of the perfect and of the black answer on images of `there` classes each, `known` labels with the background,
 * and a share `background` of each image that is background. Over the whole set every class occurs.
 */
export function rules({ known, there, background }) {
  const absent = known - 1 - there; // classes that are in neither label map of an image
  return {
    set: { perfect: 1, black: background / known },
    leftOut: { perfect: 1, black: background / (there + 1) },
    zero: { perfect: (there + 1) / known, black: background / known },
    one: { perfect: 1, black: (background + absent) / known },
  };
}

const RULES = {
  set: 'VOC: one confusion matrix over the set',
  leftOut: 'by image, absent classes left out',
  zero: 'by image, absent classes count 0',
  one: 'by image, absent classes count 1',
};

export const title = 'Four rules, and two answers: one perfect, one black';
export const controls = [
  { name: 'known', label: 'Labels, with background', min: 2, max: 151, value: 21, show: whole },
  { name: 'there', label: 'Classes in each image', min: 1, max: ({ known = 21 }) => Math.min(20, known - 1), value: 1 },
  { name: 'background', label: 'Pixels that are background', min: 0.05, max: 0.95, step: 0.05, value: 0.75, show: (value) => percent(value) },
];

export function draw(values) {
  const found = rules(values);
  const rows = Object.entries(RULES).flatMap(([key, name]) => [
    { name: `${name}: perfect`, value: found[key].perfect, words: percent(found[key].perfect, 1) },
    { name: `${name}: black`, value: found[key].black, words: percent(found[key].black, 1), kind: 'two' }]);
  const wrong = found.one.black > found.zero.perfect ? ' Black by the last rule beats perfect by the third.' : '';
  const says = `The black answer has ${percent(values.background)} of the pixels right. Its score is ${percent(found.set.black, 1)} `
    + `over the set, and by image ${percent(found.leftOut.black, 1)}, ${percent(found.zero.black, 1)} or `
    + `${percent(found.one.black, 1)}: the same answer.${wrong}`;
  return { stage: bars('Bars: perfect and black answer under each of four rules.', rows), says };
}
