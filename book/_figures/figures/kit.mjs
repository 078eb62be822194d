// Shared by the figures: labelled controls, drawing primitives, and text for those who cannot see the drawing.
// A figure is a module with `title`, `controls`, `draw(values)` and the formulas behind it; page.mjs mounts it.

const SVG = 'http://www.w3.org/2000/svg';
let number = 0; // of controls so far, for their ids

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const html = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

/** A drawing that fills the available width. */
export const picture = (width, height, alt, ...children) =>
  svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': alt, class: 'fig-picture' }, ...children);

export const text = (x, y, words, attributes = {}) => svg('text', { x, y, ...attributes }, String(words));
export const rect = (x, y, width, height, attributes = {}) =>
  svg('rect', { x, y, width: Math.max(0, width), height: Math.max(0, height), ...attributes });

/** A map of rows of values; `paint(value, row, column)` gives the attributes of a cell, or null to leave it empty. */
export function grid(x, y, cell, rows, paint) {
  const cells = rows.map((row, r) => row.map((value, c) => {
    const attributes = paint(value, r, c);
    return attributes && rect(x + c * cell, y + r * cell, cell, cell, attributes);
  }));
  const frame = rect(x, y, rows[0].length * cell, rows.length * cell, { class: 'frame' });
  return svg('g', { class: 'cells' }, rect(x, y, rows[0].length * cell, rows.length * cell, { class: 'surface' }), cells, frame);
}

/** One hue above zero, another below; the opacity is the magnitude. */
export const signed = (value) =>
  Math.abs(value) < 0.004 ? null : { class: value > 0 ? 'two' : 'one', 'fill-opacity': Math.min(1, Math.abs(value)) };

export const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)}\u00a0%`; // number and sign stay on one line
export const fixed = (value, digits = 2) => value.toFixed(digits).replace('-', '−');
export const whole = (value) => Math.round(value).toLocaleString('en-US');

/** A table of text; the first row is the header. */
export function table(caption, rows) {
  const [head, ...body] = rows;
  return html('div', { class: 'fig-scroll', tabindex: 0, role: 'group', 'aria-label': caption }, html('table', {},
    html('caption', {}, caption),
    html('thead', {}, html('tr', {}, head.map((words) => (words ? html('th', { scope: 'col' }, words) : html('td', {}))))),
    html('tbody', {}, body.map((row) => html('tr', {}, row.map((words, column) =>
      column ? html('td', {}, words) : html('th', { scope: 'row' }, words)))))));
}

/** One control: { row, read, set, limit }. Kinds: a slider, a `choice` of [value, words], a `toggle`. */
function build(control) {
  const id = `fig-control-${(number += 1)}`;
  const label = html('label', { for: id }, control.label);
  if (control.choice) {
    const options = control.choice.map(([value, words]) =>
      html('option', { value, selected: value === control.value && '' }, words));
    const select = html('select', { id }, options);
    const read = () => control.choice[select.selectedIndex][0];
    return { row: html('div', { class: 'fig-row' }, label, select), read };
  }
  if (control.toggle) {
    const box = html('input', { id, type: 'checkbox' });
    box.checked = control.value;
    return { row: html('div', { class: 'fig-row fig-toggle' }, box, label), read: () => box.checked };
  }
  const shown = html('output', { for: id });
  const { min, step = 1, value } = control;
  const max = typeof control.max === 'function' ? control.max({}) : control.max;
  const input = html('input', { id, type: 'range', min, max, step, value });
  const say = () => {
    const words = (control.show ?? String)(Number(input.value));
    shown.textContent = words;
    input.setAttribute('aria-valuetext', words);
  };
  return {
    row: html('div', { class: 'fig-row' }, label, input, shown),
    read: () => Number(input.value),
    say,
    set: (next) => { input.value = next; },
    limit: (values) => { if (typeof control.max === 'function') input.max = control.max(values); },
  };
}

/** Mount a figure; its description stays below it. */
export function mount(root, { title, controls, draw }) {
  const built = Object.fromEntries(controls.map((control) => [control.name, build(control)]));
  const stage = html('div', { class: 'fig-stage' });
  const says = html('p', { class: 'fig-says' });
  const live = html('p', { class: 'fig-live', role: 'status' }); // announced once the controls are at rest
  const form = html('div', { class: 'fig-controls' }, Object.values(built).map(({ row }) => row));
  const app = html('div', { class: 'fig-app', role: 'group', 'aria-label': title },
    html('p', { class: 'fig-title' }, title), form, stage, says, live);
  let resting;
  const read = () => Object.fromEntries(Object.entries(built).map(([name, control]) => [name, control.read()]));
  const set = (changes) => {
    for (const [name, value] of Object.entries(changes)) built[name].set(value);
    update(true);
  };
  function update(heard) {
    for (const control of Object.values(built)) control.limit?.(read());
    for (const control of Object.values(built)) control.say?.();
    const drawn = draw(read(), set);
    stage.replaceChildren(...[drawn.stage].flat());
    says.textContent = drawn.says;
    clearTimeout(resting);
    live.textContent = '';
    if (heard) resting = setTimeout(() => { live.textContent = drawn.says; }, 500);
  }
  form.addEventListener('input', () => update(true));
  update(false);
  root.prepend(app);
  root.querySelector('[data-figure-note]')?.remove();
}
