// Beside the image: the step's class and stop as bars, and all steps in words.

import { best } from './fusion.mjs';
import { sigmoid, softmax } from './network.mjs';

const SHOWN_CLASSES = 3;

export const percent = (share) => `${share > 0 && share < 0.001 ? '< 0.1' : (100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
export const time = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
export const plural = (number, what) => `${number} ${what}${number === 1 ? '' : 's'}`;

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

/** The classes that the steps name, in order. */
export const named = (steps, classes) => steps.filter(({ ended }) => !ended).map(({ scores }) => classes[best(scores) + 1]);

/** One step in words: a title, and the rest. */
export function words(step, number, classes) {
  const stop = percent(sigmoid(step.stop));
  const took = step.ms === undefined ? '' : `, ${time(step.ms)}`;
  if (step.ended) return [`Stop: ${stop}`, `the sequence ends here${took}`];
  const [{ label, share }] = ranking(step.scores);
  return [`Step ${number}: ${classes[label]} ${percent(share)}`, `covers ${percent(step.area)}${took}`];
}

function bar(name, share, colour) {
  const fill = element('span', { class: 'live-fill' });
  fill.style.width = `${100 * share}%`;
  if (colour) fill.style.background = `rgb(${colour.join(' ')})`;
  const value = element('span', { class: 'live-value' }, percent(share));
  return element('div', { class: 'live-bar' }, element('span', {}, name), element('span', { class: 'live-track' }, fill), value);
}

const title = (...children) => element('p', { class: 'live-title' }, ...children);
const note = (text) => element('p', { class: 'live-note' }, text);

/** Show the title and bars of a step, or the text before the first or after the last. */
export function describe(box, { steps, position, classes, palette, waiting }) {
  const step = steps[position - 1];
  const parts = [];
  if (position === 0) {
    parts.push(title('The image'), note(steps.length ? 'Before the first step: h and c are 0.' : waiting));
  } else if (step && !step.ended) {
    const rows = ranking(step.scores).map(({ label, share }) => bar(classes[label], share, palette[label]));
    const [{ label }] = ranking(step.scores);
    parts.push(title(swatch(palette[label]), `Step ${position}: ${classes[label]}`), ...rows);
    parts.push(note('Stop before this step'), bar('stop', sigmoid(step.stop)));
  } else {
    const found = [...new Set(named(steps, classes))];
    const names = found.map((name) => element('span', { class: 'live-name' }, swatch(palette[classes.indexOf(name)]), name));
    parts.push(title('All steps together'), element('p', {}, ...(names.length ? names : ['No class of this network.'])));
    if (step) parts.push(note('Stop, which ends the sequence'), bar('stop', sigmoid(step.stop)));
    else parts.push(note('No stop: the maximum number of steps was reached.'));
  }
  box.replaceChildren(...parts);
}
