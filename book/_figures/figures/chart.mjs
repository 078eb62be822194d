// Line charts, legends and bars. Curves differ in their dashes as well as in colour.

import { picture, svg, text } from './kit.mjs';

const WIDTH = 360;
const BOX = { left: 50, right: 338, top: 24 };

/** Position of a value on an axis { min, max, log }, from 0 to 1. */
export function place(value, { min, max, log }) {
  const f = log ? Math.log : Number;
  return (f(Math.max(value, log ? min : -Infinity)) - f(min)) / (f(max) - f(min));
}

/**
 * A line chart. `x` and `y`: { min, max, log, label, ticks: [[value, words]] }; `curves`: [{ points, kind, name }];
 * `marks`: [{ x, y, kind }], dots, or vertical lines where `y` is missing.
 */
export function chart({ alt, x, y, curves, marks = [], height = 210 }) {
  const bottom = height - 36;
  const across = (value) => BOX.left + (BOX.right - BOX.left) * Math.min(1, Math.max(0, place(value, x)));
  const up = (value) => bottom - (bottom - BOX.top) * Math.min(1, Math.max(0, place(value, y)));
  const ticks = [
    ...x.ticks.map(([value, words]) => [
      svg('line', { x1: across(value), x2: across(value), y1: BOX.top, y2: bottom, class: 'rule' }),
      text(across(value), bottom + 14, words, { 'text-anchor': 'middle', class: 'small' }),
    ]),
    ...y.ticks.map(([value, words]) => [
      svg('line', { x1: BOX.left, x2: BOX.right, y1: up(value), y2: up(value), class: 'rule' }),
      text(BOX.left - 4, up(value) + 4, words, { 'text-anchor': 'end', class: 'small' }),
    ]),
  ];
  const lines = curves.map(({ points, kind }) =>
    svg('polyline', { class: `curve ${kind}`, points: points.map(([a, b]) => `${across(a)},${up(b)}`).join(' ') }));
  const dots = marks.map((mark) => (mark.y === undefined
    ? svg('line', { x1: across(mark.x), x2: across(mark.x), y1: BOX.top, y2: bottom, class: 'here' })
    : svg('circle', { cx: across(mark.x), cy: up(mark.y), r: 4.5, class: `dot ${mark.kind}` })));
  return picture(WIDTH, height, alt, ticks, lines, dots,
    text((BOX.left + BOX.right) / 2, height - 6, x.label, { 'text-anchor': 'middle' }),
    y.label && text(4, 10, y.label, { class: 'small' }));
}

/** A legend: the name of each curve beside a sample of its line. */
export function legend(curves) {
  return picture(WIDTH, 20 * Math.ceil(curves.length / 2), `Legend: ${curves.map(({ name }) => name).join(', ')}`,
    curves.map(({ kind, name }, index) => {
      const [left, middle] = [8 + 180 * (index % 2), 10 + 20 * Math.floor(index / 2)];
      return [svg('polyline', { class: `curve ${kind}`, points: `${left},${middle} ${left + 28},${middle}` }),
        text(left + 34, middle + 4, name, { class: 'small' })];
    }));
}

/** Horizontal bars: [{ name, value, words, kind }], values from 0 to `most`. */
export function bars(alt, rows, most = 1) {
  return picture(WIDTH, 34 * rows.length + 4, alt, rows.map(({ name, value, words, kind = 'one' }, index) => [
    text(4, 34 * index + 13, name, { class: 'small' }),
    text(352, 34 * index + 13, words, { class: 'small', 'text-anchor': 'end' }),
    svg('rect', { x: 4, y: 34 * index + 18, width: 348, height: 11, class: 'surface' }),
    svg('rect', { x: 4, y: 34 * index + 18, width: 348 * Math.min(1, Math.max(0, value / most)), height: 11, class: kind }),
  ]));
}

/** Ticks at the powers of ten between two values. */
export function tens(min, max, words = (value) => value.toLocaleString('en-US'), every = 1) {
  const ticks = [];
  for (let power = Math.ceil(Math.log10(min) - 1e-9); power <= Math.log10(max) + 1e-9; power += every) {
    ticks.push([10 ** power, words(10 ** power)]);
  }
  return ticks;
}
