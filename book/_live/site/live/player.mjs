// The stage: an image, the steps of an answer drawn over it one at a time, and the controls to go through them.

import { attended, inside, paint, staged } from './drawing.mjs';
import { best, fuse } from './fusion.mjs';
import { drawMaps } from './maps.mjs';
import { describe, element, swatch, words } from './view.mjs';

export const PAUSE = 700; // ms between two steps, so that one can see each

export class Player {
  /** @param ui elements by name. @param palette colours of labels. */
  constructor(ui, palette) {
    Object.assign(this, { ui, palette, steps: [], position: 0, peeked: 0, timer: 0, following: true, waiting: '' });
    ui.slider.addEventListener('input', () => this.pick(Number(ui.slider.value)));
    ui.back.addEventListener('click', () => this.pick(this.position - 1));
    ui.forth.addEventListener('click', () => this.pick(this.position + 1));
    ui.play.addEventListener('click', () => this.play());
    ui.attention.addEventListener('change', () => this.draw());
    ui.map.addEventListener('change', () => this.drawMaps());
    ui.state.addEventListener('toggle', () => this.drawMaps());
    ui.app.addEventListener('keydown', (event) => this.#byKey(event));
  }

  /** The last position: 0 is the image, 1 … N a step, N + 1 all steps together. */
  get last() {
    return this.steps.filter(({ ended }) => !ended).length + (this.fused ? 1 : 0);
  }

  /** Show another image, without an answer; `waiting` is shown meanwhile. */
  show(image, waiting = '') {
    this.stop();
    this.background = staged(image);
    this.waiting = waiting;
    this.begin();
  }

  /** Begin a new answer: remove the steps of the old one. */
  begin(about) {
    this.stop();
    Object.assign(this, { about, steps: [], fused: undefined, peeked: 0, following: true });
    this.ui.list.replaceChildren();
    this.go(0);
  }

  /** Add the next step of the answer. */
  add(step) {
    this.#append(step);
    if (this.following && !step.ended) this.go(this.steps.length);
    else this.go(this.position);
  }

  /** All steps have arrived: fuse them. */
  finish() {
    this.#fuse();
    this.go(this.following ? this.last : this.position);
  }

  /** Replace the answer to the same image by another, all at once; the reader's position is kept. */
  replace(about, steps) {
    const stay = this.fused && this.position < this.last ? this.position : Infinity;
    Object.assign(this, { about, steps: [], fused: undefined });
    const focused = [...this.ui.list.children].indexOf(document.activeElement?.closest('.live-list li'));
    this.ui.list.replaceChildren();
    steps.forEach((step) => this.#append(step));
    this.#fuse();
    this.peeked = Math.min(this.peeked, this.last - 1);
    this.ui.list.children[focused]?.firstChild.focus();
    this.go(Math.min(stay, this.last));
  }

  /** Show the next frame of a camera, with all its steps fused. */
  film(image, about, steps) {
    this.background = staged(image);
    this.position = Infinity;
    this.replace(about, steps);
  }

  #append(step) {
    if (!step.ended) {
      const label = best(step.scores) + 1;
      step.labels = inside(step.mask, this.background, label);
      step.area = step.labels.reduce((sum, value) => sum + (value > 0), 0) / step.labels.length;
    }
    this.steps.push(step);
    const number = this.steps.length;
    const [title, rest] = words(step, number, this.about.classes);
    const button = element('button', { type: 'button' }, element('strong', {}, title), ` ${rest}`);
    if (!step.ended) button.prepend(swatch(this.palette[best(step.scores) + 1]));
    const peek = (at) => () => this.peek(at);
    button.addEventListener('pointerenter', (event) => event.pointerType === 'mouse' && this.peek(number));
    button.addEventListener('pointerleave', peek(0));
    button.addEventListener('focus', () => button.matches(':focus-visible') && this.peek(number));
    button.addEventListener('blur', peek(0));
    button.addEventListener('click', () => this.pick(number));
    this.ui.list.append(element('li', {}, button));
  }

  #fuse() {
    const { height, width } = this.background;
    const taken = this.steps.filter(({ ended }) => !ended);
    this.fused = fuse(taken, height, width);
  }

  go(to) {
    this.position = Math.max(0, Math.min(to, this.last));
    this.draw();
    const { ui, steps, position, last } = this;
    const classes = this.about?.classes ?? [];
    describe(ui.panel, { steps, position, classes, palette: this.palette, waiting: this.waiting });
    this.drawMaps();
    Object.assign(ui.slider, { max: last, value: position, disabled: !last });
    ui.slider.setAttribute('aria-valuetext', this.title);
    ui.back.disabled = position === 0;
    ui.forth.disabled = position === last;
    ui.play.disabled = !this.fused;
    const current = Math.min(position, steps.length);
    [...ui.list.children].forEach((row, at) => row.firstChild.setAttribute('aria-current', at + 1 === current ? 'step' : 'false'));
  }

  get title() {
    return this.ui.panel.querySelector('.live-title').textContent;
  }

  /** Draw the current position, or the step under the pointer. */
  draw() {
    const { ui, background, steps, position, palette } = this;
    if (!background) return;
    const peeked = steps[this.peeked - 1];
    const together = this.fused && position === this.last;
    const whose = peeked ? [peeked] : together ? steps : steps.slice(position - 1, position);
    const maps = peeked || ui.attention.checked ? whose.flatMap(({ maps: { attention = [] } }) => attention) : [];
    if (maps.length) {
      attended(ui.image, background, maps);
      const of = maps.length > 1 ? 'each step, in order' : `step ${peeked ? this.peeked : Math.min(position, steps.length)}`;
      ui.caption.textContent = `Attention of ${of}: orange is 1, grey is 0.`;
    } else {
      const labels = together ? this.fused : steps[position - 1]?.labels;
      paint(ui.image, background, labels, palette, { dimmed: !together });
      ui.caption.textContent = together ? 'All masks, fused into one label map.' : labels ? `Mask of step ${position}.` : 'The image.';
    }
    ui.image.setAttribute('aria-label', ui.caption.textContent);
  }

  drawMaps() {
    if (!this.ui.state.open) return;
    drawMaps(this.ui.maps, { steps: this.steps, position: this.position, name: this.ui.map.value });
  }

  /** Show the attention of a step while it has the pointer or the focus; 0 hides it. */
  peek(number) {
    const shown = this.steps[number - 1]?.ended ? 0 : number;
    if (shown === this.peeked) return;
    this.peeked = shown;
    this.draw();
  }

  /** Go to a position that the reader chose; further steps no longer move it. */
  pick(to) {
    this.following = false;
    this.peeked = 0;
    this.stop();
    this.go(to);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.ui.play.textContent = 'Play';
  }

  play() {
    if (this.timer) return this.stop();
    this.pick(this.position === this.last ? 0 : this.position);
    this.ui.play.textContent = 'Pause';
    this.timer = setInterval(() => {
      this.go(this.position + 1);
      if (this.position === this.last) this.stop();
    }, PAUSE + 200);
  }

  #byKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.pick(this.position + by);
  }
}
