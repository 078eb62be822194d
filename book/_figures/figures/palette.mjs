// Chapter 6: an edge between two labels is enlarged smoothly, as colours and as numbers, and read again.

import { VOC_CLASSES, colour, css } from './classes.mjs';
import { picture, rect, svg, text } from './kit.mjs';

/** The label whose colour is nearest; of equals the lowest. */
export function nearest(rgb) {
  const distances = VOC_CLASSES.map((_, label) => colour(label).reduce((sum, value, k) => sum + (value - rgb[k]) ** 2, 0));
  return distances.indexOf(Math.min(...distances));
}

/** `count` pixels from label a to label b, and each as three ways of resizing leave it. */
export function edge(a, b, count) {
  return Array.from({ length: count }, (_, k) => {
    const share = k / (count - 1);
    const mix = (x, y) => Math.floor((1 - share) * x + share * y + 0.5);
    const rgb = colour(a).map((value, channel) => mix(value, colour(b)[channel]));
    return { rgb, asColours: nearest(rgb), asNumbers: mix(a, b), asNearest: share < 0.5 ? a : b };
  });
}

/** Pairs of labels whose colours, half and half, are exactly that of a third. */
export function blends() {
  const labels = new Map(VOC_CLASSES.map((_, label) => [String(colour(label)), label]));
  const found = [];
  for (let a = 0; a < VOC_CLASSES.length; a += 1) {
    for (let b = 0; b < a; b += 1) {
      const third = labels.get(String(colour(a).map((value, k) => Math.floor((value + colour(b)[k]) / 2))));
      if (third !== undefined && third !== a && third !== b) found.push([a, b, third]);
    }
  }
  return found;
}

const every = VOC_CLASSES.map((name, label) => [label, `${name} (${label})`]);
export const title = 'A mask that is resized smoothly';
export const controls = [
  { name: 'a', label: 'Label on the left', value: 1, choice: every },
  { name: 'b', label: 'Label on the right', value: 0, choice: every },
  { name: 'count', label: 'Pixels across the edge', min: 3, max: 25, step: 2, value: 9 },
];

export function draw({ a, b, count }) {
  const cells = edge(a, b, count);
  const width = 352 / count;
  const strip = (y, name, paint) => [text(4, y - 5, name, { class: 'small' }),
    svg('g', { class: 'cells' }, cells.map((cell, k) => rect(4 + k * width, y, width, 24, { fill: css(paint(cell)) }))),
    rect(4, y, 352, 24, { class: 'frame' })];
  const marks = (y, key) => cells.map((cell, k) => cell[key] !== a && cell[key] !== b
    && rect(4.5 + k * width, y + 26, width - 1, 4, { class: 'two' }));
  const stage = picture(360, 200, 'Four strips: the blended colours, and the labels that each way of resizing leaves.',
    strip(18, 'colours, resized smoothly', ({ rgb }) => rgb),
    strip(64, 'read again as the nearest colour', ({ asColours }) => colour(asColours)), marks(64, 'asColours'),
    strip(115, 'numbers, resized smoothly', ({ asNumbers }) => colour(asNumbers)), marks(115, 'asNumbers'),
    strip(166, 'numbers, the nearest taken', ({ asNearest }) => colour(asNearest)));
  const strangers = (key) => {
    const found = [...new Set(cells.map((cell) => cell[key]))].filter((label) => label !== a && label !== b);
    return found.length ? found.map((label) => VOC_CLASSES[label]).join(', ') : 'none';
  };
  const says = a === b ? 'The two labels are the same: there is no edge.'
    : `Classes that were never there (underlined): as colours ${strangers('asColours')}; as numbers ${strangers('asNumbers')}; `
      + `by the nearest pixel none. Of all ${VOC_CLASSES.length * (VOC_CLASSES.length - 1) / 2} pairs of colours, `
      + `${blends().length} mix half and half to exactly a third one.`;
  return { stage, says };
}
