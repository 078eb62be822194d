// Chapter 9: a mask over a thing, and three scores of it.

import { bars } from './chart.mjs';
import { grid, html, percent, picture, svg, text } from './kit.mjs';

const SIDE = 28;
const square = (row, column, side, top, left) => row >= top && row < top + side && column >= left && column < left + side;

/** Ground truth (255: void) and answer as label maps of one class: a square, and one that is grown and shifted. */
export function maps({ side, grow, right, down, rim }) {
  const corner = Math.floor((SIDE - side) / 2);
  const guess = Math.max(0, side + 2 * grow);
  const rows = (f) => Array.from({ length: SIDE }, (_, row) => Array.from({ length: SIDE }, (_, column) => f(row, column)));
  const truth = rows((row, column) => {
    if (square(row, column, side, corner, corner)) return 1;
    return rim && square(row, column, side + 2, corner - 1, corner - 1) ? 255 : 0;
  });
  const answer = rows((row, column) => Number(square(row, column, guess, corner - grow + down, corner - grow + right)));
  return { truth, answer };
}

/** IoU and Dice of the class, and the pixel accuracy; void does not count. */
export function scores({ truth, answer }) {
  const counts = { hit: 0, invented: 0, missed: 0, empty: 0 };
  truth.forEach((row, r) => row.forEach((label, c) => {
    if (label === 255) return;
    counts[label ? (answer[r][c] ? 'hit' : 'missed') : (answer[r][c] ? 'invented' : 'empty')] += 1;
  }));
  const { hit, invented, missed, empty } = counts;
  return { ...counts, iou: hit / (hit + invented + missed), dice: (2 * hit) / (2 * hit + invented + missed),
    pixels: (hit + empty) / (hit + empty + invented + missed) };
}

const pixels = (value) => `${value} ${Math.abs(value) === 1 ? 'pixel' : 'pixels'}`;
export const title = 'Move a mask over a thing';
export const controls = [
  { name: 'right', label: 'Mask moved right', min: -10, max: 10, value: 2, show: pixels },
  { name: 'down', label: 'Mask moved down', min: -10, max: 10, value: 1, show: pixels },
  { name: 'grow', label: 'Mask grown at each edge', min: -3, max: 5, value: 0, show: pixels },
  { name: 'side', label: 'Side of the thing', min: 4, max: 16, step: 2, value: 12, show: pixels },
  { name: 'rim', label: 'a rim of void around the thing', toggle: true, value: false },
];

export function draw(values, set) {
  const shown = maps(values);
  const found = scores(shown);
  const cell = 9;
  const drawing = picture(360, 276, 'Two squares, the thing and the mask; pixels are coloured as hit, missed or invented.',
    grid(4, 4, cell, shown.truth, (label, r, c) => {
      const on = shown.answer[r][c];
      if (label === 255) return { class: 'off', 'fill-opacity': on ? 0.8 : 0.45 };
      return label ? { class: on ? 'three' : 'two' } : on && { class: 'one' };
    }),
    [['three', 'hit', found.hit], ['two', 'missed', found.missed], ['one', 'invented', found.invented]].map(([kind, name, count], k) => [
      svg('rect', { x: 264, y: 10 + 38 * k, width: 13, height: 13, class: kind }),
      text(282, 21 + 38 * k, name), text(282, 36 + 38 * k, `${count} pixels`, { class: 'small' })]),
    values.rim && [svg('rect', { x: 264, y: 124, width: 13, height: 13, class: 'off', 'fill-opacity': 0.6 }), text(282, 135, 'void')]);
  drawing.classList.add('grab');
  drawing.addEventListener('pointerdown', (down) => { // dragging: an alternative to the sliders
    const scale = 360 / drawing.getBoundingClientRect().width / cell;
    const within = (value) => Math.max(-10, Math.min(10, Math.round(value)));
    const move = (event) => set({ right: within(values.right + (event.clientX - down.clientX) * scale),
      down: within(values.down + (event.clientY - down.clientY) * scale) });
    addEventListener('pointermove', move);
    const stop = () => removeEventListener('pointermove', move);
    addEventListener('pointerup', stop, { once: true });
    addEventListener('pointercancel', stop, { once: true });
  });
  const rows = bars('Bars: IoU, Dice and pixel accuracy.', [
    { name: 'IoU', value: found.iou, words: percent(found.iou, 1), kind: 'four' },
    { name: 'Dice', value: found.dice, words: percent(found.dice, 1), kind: 'four' },
    { name: 'pixel accuracy', value: found.pixels, words: percent(found.pixels, 1), kind: 'off' }]);
  const says = `IoU ${percent(found.iou, 1)}, Dice ${percent(found.dice, 1)}, pixel accuracy ${percent(found.pixels, 1)}. `
    + (found.hit ? 'Dice is 2·IoU / (1 + IoU): never below the IoU, and it ranks masks in the same order.'
      : 'No pixel of the thing is hit, yet most pixels are right.');
  return { stage: [html('div', {}, drawing), rows], says };
}
