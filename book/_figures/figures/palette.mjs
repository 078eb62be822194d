// Chapter 6: an edge between two labels, enlarged smoothly as colours and as numbers, and read back as labels.

import { VOC_CLASSES, colour, css } from './classes.mjs';
import { picture, rect, svg, text } from './kit.mjs';

/** The label with the nearest colour, the lowest of several. */
export function nearest(rgb) {
  const distances = VOC_CLASSES.map((_, label) => colour(label).reduce((sum, value, k) => sum + (value - rgb[k]) ** 2, 0));
  return distances.indexOf(Math.min(...distances));
}

/** `count` pixels from label a to label b, each after three ways of resizing. */
export function edge(a, b, count) {
  return Array.from({ length: count }, (_, k) => {
    const share = k / (count - 1);
    const mix = (x, y) => Math.floor((1 - share) * x + share * y + 0.5);
    const rgb = colour(a).map((value, channel) => mix(value, colour(b)[channel]));
    return { rgb, asColours: nearest(rgb), asNumbers: mix(a, b), asNearest: share < 0.5 ? a : b };
  });
}

/** Pairs of labels whose mean colour is exactly that of a third label. */
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
export const title = 'A mask resized by interpolation';
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
  const stage = picture(360, 200, 'Four strips: the interpolated colours, and the labels after each way of resizing.',
    strip(18, 'colours, interpolated', ({ rgb }) => rgb),
    strip(64, 'read back as the nearest colour', ({ asColours }) => colour(asColours)), marks(64, 'asColours'),
    strip(115, 'numbers, interpolated', ({ asNumbers }) => colour(asNumbers)), marks(115, 'asNumbers'),
    strip(166, 'numbers, nearest neighbour', ({ asNearest }) => colour(asNearest)));
  const strangers = (key) => {
    const found = [...new Set(cells.map((cell) => cell[key]))].filter((label) => label !== a && label !== b);
    return found.length ? found.map((label) => VOC_CLASSES[label]).join(', ') : 'none';
  };
  const says = a === b ? 'The two labels are the same: there is no edge.'
    : `Invented classes (underlined): with colours, ${strangers('asColours')}; with numbers, ${strangers('asNumbers')}; `
      + `with the nearest neighbour, none. Of all ${VOC_CLASSES.length * (VOC_CLASSES.length - 1) / 2} pairs of colours, `
      + `${blends().length} average exactly to the colour of a third label.`;
  return { stage, says };
}
