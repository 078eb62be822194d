// Chapter 3: the sizes of the plain encoder's maps, and the receptive field of one cell of each.

import { percent, picture, rect, svg, table, text } from './kit.mjs';

/** Stages of the plain encoder, finest first: stride, side of the map, and side of the receptive field in pixels. */
export function stages(side, count) {
  const found = [];
  const deepest = 2 ** (count - 1);
  let [stride, sees, cells] = [1, 1, deepest * Math.ceil(side / deepest)]; // the image is padded first
  for (let stage = 0; stage < count; stage += 1) {
    if (stage) {
      sees += stride; // 2×2 pooling adds one neighbour at the old stride
      stride *= 2;
      cells /= 2;
    }
    sees += 2 * 2 * stride; // two 3×3 convolutions
    found.push({ stride, side: cells, sees });
  }
  return found;
}

export const title = 'What one cell of each map sees';
export const controls = [
  { name: 'side', label: 'Side of the image', min: 32, max: 512, value: 256, show: (value) => `${value} pixels` },
  { name: 'count', label: 'Stages', min: 2, max: 6, value: 5 },
];

const KINDS = ['one', 'two', 'three', 'four', 'off', 'one'];

export function draw({ side, count }) {
  const found = stages(side, count);
  const scale = 200 / side;
  const boxes = found.map(({ sees }, index) => {
    const wide = Math.min(sees * scale, 200);
    return [svg('rect', { x: 104 - wide / 2, y: 104 - wide / 2, width: wide, height: wide, class: `box ${KINDS[index]}` }),
      wide > 26 && text(108 - wide / 2, 116 - wide / 2, index, { class: 'small' })];
  });
  const key = found.map(({ sees }, index) => [
    svg('rect', { x: 222, y: 34 + 24 * index, width: 12, height: 12, class: `box ${KINDS[index]}` }),
    text(242, 44 + 24 * index, `stage ${index}: ${sees} pixels`, { class: 'small' }),
  ]);
  const stage = picture(360, 208, 'The image, with a square for each stage: what one cell in the middle sees.',
    rect(4, 4, 200, 200, { class: 'surface' }), rect(4, 4, 200, 200, { class: 'frame' }), boxes,
    text(222, 20, 'one cell sees', { class: 'strong' }), key);
  const rows = found.map((item, index) => [`stage ${index}`, item.stride, `${item.side}×${item.side}`, item.sees,
    percent(Math.min(1, item.sees / side))]);
  const last = found[count - 1];
  const wide = last.sees >= side ? 'so a cell in the middle sees all of it' : 'so even a cell in the middle does not see all of it';
  const says = `The bottleneck has ${last.side} × ${last.side} cells. Each sees a square of side ${last.sees}; the image has side ${side}, ${wide}. `
    + `A cell of the finest skip sees a square of side ${found[0].sees}: enough to see an edge, but not what it belongs to.`
    + (side % last.stride ? ` ${side} is not a multiple of ${last.stride}: the image is padded to ${found[0].side} first.` : '');
  return { stage: [stage, table('Maps of the encoder', [['', 'stride', 'map', 'sees', 'share'], ...rows])], says };
}
