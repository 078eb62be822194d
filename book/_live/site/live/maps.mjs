// Maps of the state: a few notable channels out of dozens.

import { sigmoid } from './network.mjs';
import { stretch } from './pixels.mjs';
import { element } from './view.mjs';

const NEGATIVE = [43, 123, 199];
const POSITIVE = [226, 111, 36];
const SHOWN = 4;
export const MAP_NAMES = {
  h: 'Hidden state h',
  c: 'Cell state c',
  input_gate: 'Input gate',
  forget_gate: 'Forget gate',
  output_gate: 'Output gate',
};

const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

/** Pearson's correlation; 0 where one of the two is constant. */
export function correlation(one, other) {
  const [a, b] = [one, other].map((numbers) => {
    const centre = mean(numbers);
    return Array.from(numbers, (number) => number - centre);
  });
  const product = (x, y) => x.reduce((sum, value, at) => sum + value * y[at], 0);
  const size = Math.sqrt(product(a, a) * product(b, b));
  return size > 1e-12 ? product(a, b) / size : 0;
}

/** Masks (logits) as one map in [0, 1] on another map's grid: the maximum of their probabilities. */
function painted(masks, { height, width }) {
  const shares = masks.map((mask) => stretch(mask, height, width).data.map(sigmoid));
  return shares.reduce((one, other) => one.map((share, at) => Math.max(share, other[at])));
}

/**
 * The notable channels of a step and the reason for each: {channel, why}, each channel once.
 *
 * @param steps of an answer, with their maps; the one at `index` is described.
 * @param name of the maps: a key of MAP_NAMES.
 */
export function notable(steps, index, name) {
  const { maps, mask } = steps[index];
  const channels = maps[name];
  const before = steps[index - 1]?.maps[name];
  const changes = channels.map(({ data }, k) => mean(data.map((value, at) => Math.abs(value - (before?.[k].data[at] ?? 0)))));
  const follows = (target) => channels.map(({ data }) => Math.abs(correlation(data, target)));
  const earlier = steps.slice(0, index).map((step) => step.mask);
  const measures = [];
  if (mask) measures.push([follows(painted([mask], channels[0])), (value) => `follows this step’s mask: correlation ${value.toFixed(2)}`]);
  if (earlier.length) measures.push([follows(painted(earlier, channels[0])), (value) => `follows the earlier masks: correlation ${value.toFixed(2)}`]);
  measures.push([changes, (value) => `changed most in this step: by ${value.toFixed(2)} on average`]);
  measures.push([changes.map((change) => -change), (value) => `changed least: by ${(-value).toFixed(2)} on average`]);
  const spread = channels.map(({ data }) => Math.max(...data) - Math.min(...data));
  measures.push([spread, (value) => `varies most across the image: range ${value.toFixed(2)}`]);
  const taken = new Set();
  return measures.slice(0, SHOWN).map(([values, words]) => {
    const channel = values.reduce((best, value, k) => (!taken.has(k) && (best < 0 || value > values[best]) ? k : best), -1);
    taken.add(channel);
    return { channel, why: words(values[channel]) };
  });
}

function tile({ data, height, width }, scale) {
  const canvas = element('canvas', { role: 'img' });
  Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  data.forEach((value, at) => {
    const [red, green, blue] = value < 0 ? NEGATIVE : POSITIVE;
    context.fillStyle = `rgb(${red} ${green} ${blue} / ${Math.min(1, Math.abs(value) / (scale || 1))})`;
    context.fillRect(at % width, Math.floor(at / width), 1, 1);
  });
  return canvas;
}

/** Draw the notable channels of one kind of map after a step, or say why there are none. */
export function drawMaps(box, { steps, position, name }) {
  const index = Math.min(position, steps.length) - 1;
  const channels = steps[index]?.maps[name];
  if (!channels) {
    const why = steps.length && !steps[0].maps[name] ? 'These maps are computed when the network runs in your browser.' : 'The maps appear with the first step.';
    box.replaceChildren(element('p', {}, why));
    return;
  }
  const most = Math.max(...channels.flatMap(({ data }) => Array.from(data, Math.abs)));
  const scale = name.endsWith('gate') ? 1 : most;
  const [{ height, width }] = channels;
  const figures = notable(steps, index, name).map(({ channel, why }) => {
    const canvas = tile(channels[channel], scale);
    const words = `Channel ${channel + 1} ${why}`;
    canvas.setAttribute('aria-label', words);
    return element('figure', {}, canvas, element('figcaption', {}, words));
  });
  const colours = `Full orange is ${scale.toFixed(scale < 10 ? 2 : 0)}${most && !name.endsWith('gate') ? ', blue is negative' : ''}`;
  const legend = `${MAP_NAMES[name]} after step ${index + 1}: ${SHOWN} of its ${channels.length} channels, ${height} × ${width} cells each. ${colours}.`;
  box.replaceChildren(element('p', {}, legend), element('div', { class: 'live-tiles' }, ...figures));
}
