// What stands beside the image: the step's class and stop, its maps, and the list of all steps in words.

import { best } from './fusion.mjs';
import { attended, largest, mosaic } from './drawing.mjs';
import { sigmoid, softmax } from './network.mjs';

const SHOWN_CLASSES = 3;
export const MAP_NAMES = {
  attention: 'Attention map',
  h: 'Hidden state h',
  c: 'Cell state c',
  input_gate: 'Input gate',
  forget_gate: 'Forget gate',
  output_gate: 'Output gate',
};

export const percent = (share) => `${share > 0 && share < 0.001 ? '< 0.1' : (100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
export const time = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function swatch(colour) {
  const made = element('span', { class: 'live-swatch', 'aria-hidden': 'true' });
  made.style.background = `rgb(${colour.join(' ')})`;
  return made;
}

/** The most probable classes of a step: {label, share}, best first. */
export function ranking(scores) {
  return softmax(scores)
    .map((share, column) => ({ label: column + 1, share }))
    .sort((a, b) => b.share - a.share)
    .slice(0, SHOWN_CLASSES);
}

/** One step in words. */
export function sentence(step, number, classes) {
  const stop = percent(sigmoid(step.stop));
  if (step.ended) return `Stop: ${stop}, so the sequence ends here (${time(step.ms)})`;
  const [{ label, share }] = ranking(step.scores);
  const mask = `covers ${percent(step.area)} of the image`;
  return `Step ${number}: ${classes[label]} ${percent(share)}, ${mask}; stop ${stop} before it (${time(step.ms)})`;
}

function bar(name, share, colour) {
  const fill = element('span', { class: 'live-fill' });
  fill.style.width = `${100 * share}%`;
  if (colour) fill.style.background = `rgb(${colour.join(' ')})`;
  const value = element('span', { class: 'live-value' }, percent(share));
  return element('div', { class: 'live-bar' }, element('span', {}, name), element('span', { class: 'live-track' }, fill), value);
}

/** Title and bars of a step, or of what there is before the first and after the last. */
export function describe(box, { steps, position, total, classes, palette, busy }) {
  const step = steps[position - 1];
  const parts = [];
  if (position === 0) {
    parts.push(element('h3', {}, 'The image'));
    parts.push(element('p', {}, total ? 'Before the first step: the state is empty.' : busy ? 'Encoding …' : ''));
  } else if (step && !step.ended) {
    const [first, ...others] = ranking(step.scores);
    const title = element('h3', {}, swatch(palette[first.label]), `Step ${position}: ${classes[first.label]}`);
    parts.push(title, element('h4', {}, 'Class'), bar(classes[first.label], first.share, palette[first.label]));
    for (const { label, share } of others) parts.push(bar(classes[label], share, palette[label]));
    parts.push(element('h4', {}, 'Stop, asked before this step'), bar('stop', sigmoid(step.stop)));
  } else {
    parts.push(element('h3', {}, 'All steps together'));
    const found = [...new Set(steps.filter(({ ended }) => !ended).map(({ scores }) => best(scores) + 1))];
    const names = found.map((label) => element('span', { class: 'live-name' }, swatch(palette[label]), classes[label]));
    parts.push(element('p', {}, ...(names.length ? names : ['Nothing that it knows.'])));
    if (step) parts.push(element('h4', {}, 'Stop, which ends the sequence'), bar('stop', sigmoid(step.stop)));
    else parts.push(element('p', {}, 'No stop: the network took all the steps that it may.'));
  }
  box.replaceChildren(...parts);
}

/** One kind of map after a step, and what it shows in words; of attention, the maps of all steps after the last. */
export function drawMaps(canvas, caption, { steps, position, background, name }) {
  const attention = name === 'attention';
  const taken = steps.slice(0, position).filter(({ ended }) => !ended);
  const all = attention && position > taken.length; // all steps together
  const maps = all ? taken.flatMap((step) => step.maps.attention) : steps[position - 1]?.maps[name];
  canvas.hidden = !maps?.length;
  if (canvas.hidden) {
    caption.textContent = position ? 'This step was not taken.' : 'The maps appear with the first step.';
    return;
  }
  canvas.classList.toggle('live-smooth', attention);
  const [{ height, width }] = maps;
  const cells = `${height} × ${width} cells`;
  if (attention) {
    attended(canvas, background, maps);
    const whose = all ? 'Where each step looked, in their order' : 'Where this step looked';
    caption.textContent = `${whose}: orange is 1, grey is 0; ${cells}.`;
  } else {
    const gate = name.endsWith('gate');
    const scale = gate ? 1 : Math.max(...steps.map((step) => largest(step.maps[name]))); // one for all steps
    mosaic(canvas, maps, scale);
    const colours = gate ? 'orange: open (1)' : `orange: up to ${scale.toFixed(2)}; blue: negative`;
    caption.textContent = `${maps.length} channels of ${cells}; ${colours}.`;
  }
  canvas.setAttribute('aria-label', `${MAP_NAMES[name]} after step ${position}: ${caption.textContent}`);
}
