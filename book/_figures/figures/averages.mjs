// Chapter 10: the "mIoU" of a perfect answer and of an all-background ("black") one, by four rules.

import { bars } from './chart.mjs';
import { percent, whole } from './kit.mjs';

/**
 * Scores of the perfect and the black answer on images with `there` classes each and a share `background` of background
 * pixels; `known` labels, including background. Every class occurs somewhere in the set.
 */
export function rules({ known, there, background }) {
  const absent = known - 1 - there; // classes in neither label map of an image
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

export const title = 'A perfect and an all-background answer, by four rules';
export const controls = [
  { name: 'known', label: 'Labels, incl. background', min: 2, max: 151, value: 21, show: whole },
  { name: 'there', label: 'Classes per image', min: 1, max: ({ known = 21 }) => Math.min(20, known - 1), value: 1 },
  { name: 'background', label: 'Background pixels', min: 0.05, max: 0.95, step: 0.05, value: 0.75, show: (value) => percent(value) },
];

export function draw(values) {
  const found = rules(values);
  const rows = Object.entries(RULES).flatMap(([key, name]) => [
    { name: `${name}: perfect`, value: found[key].perfect, words: percent(found[key].perfect, 1) },
    { name: `${name}: black`, value: found[key].black, words: percent(found[key].black, 1), kind: 'two' }]);
  const wrong = found.one.black > found.zero.perfect ? ' Black by the last rule scores higher than perfect by the third.' : '';
  const says = `The black answer has ${percent(values.background)} of the pixels right. The same answer scores `
    + `${percent(found.set.black, 1)} over the set, and ${percent(found.leftOut.black, 1)}, ${percent(found.zero.black, 1)} `
    + `or ${percent(found.one.black, 1)} by image.${wrong}`;
  return { stage: bars('Bars: scores of the perfect and the black answer by four rules.', rows), says };
}
