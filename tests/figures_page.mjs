// What tests/test_interactive.py lets a browser do: open all figures on one page, use every control, and report.

const violations = [];
addEventListener('securitypolicyviolation', ({ blockedURI, violatedDirective }) => violations.push(`${violatedDirective} ${blockedURI}`));
const errors = [];
addEventListener('error', ({ message }) => errors.push(message));
addEventListener('unhandledrejection', ({ reason }) => errors.push(String(reason)));
const logged = console.error;
console.error = (...words) => { errors.push(words.join(' ')); logged(...words); };

await import('./figures/page.mjs');
const figures = {};
for (const root of document.querySelectorAll('[data-figure]')) {
  const says = () => root.querySelector('.fig-says')?.textContent;
  const inputs = [...root.querySelectorAll('.fig-controls :is(input, select)')];
  const said = new Set([says()]);
  for (const input of inputs) {
    const states = input.type === 'checkbox' ? [false, true]
      : input.tagName === 'SELECT' ? [...input.options].map((_, index) => index)
        : [input.min, input.max, (Number(input.min) + Number(input.max)) / 2];
    for (const state of states) {
      if (input.type === 'checkbox') input.checked = state;
      else if (input.tagName === 'SELECT') input.selectedIndex = state;
      else input.value = state;
      input.dispatchEvent(new Event('input', { bubbles: true }));
      said.add(says());
    }
  }
  figures[root.dataset.figure] = {
    controls: inputs.length,
    said: [...said],
    unlabelled: inputs.filter(({ labels }) => !labels.length || !labels[0].textContent.trim()).length,
    silent: inputs.filter((input) => input.type === 'range' && !input.getAttribute('aria-valuetext')).length,
    drawings: [...root.querySelectorAll('svg')].map((drawing) => drawing.getAttribute('aria-label')),
    group: root.querySelector('[role=group]')?.getAttribute('aria-label'),
    note: root.querySelector('[data-figure-note]') !== null,
    words: root.lastElementChild.textContent.length,
    odd: [...root.querySelectorAll('*')].filter((node) =>
      [...node.attributes].some(({ name, value }) => name === 'style' || name.startsWith('on') || /NaN|undefined|Infinity/.test(value))
      || (!node.children.length && /NaN|undefined/.test(node.textContent))).map((node) => node.outerHTML.slice(0, 120)),
  };
}
// The mask of chapter 9 follows a pointer, too, until it is let go.
const mask = document.querySelector('[data-figure=overlap]');
const right = mask.querySelector('input[type=range]');
right.value = 0;
right.dispatchEvent(new Event('input', { bubbles: true }));
const point = (type, clientX, target = window) => target.dispatchEvent(new PointerEvent(type, { clientX, clientY: 9, bubbles: true }));
const places = [];
point('pointerdown', 0, mask.querySelector('.grab'));
for (const [type, clientX] of [['pointermove', 40], ['pointerup', 40], ['pointermove', 400]]) {
  point(type, clientX);
  places.push(Number(right.value));
}
await new Promise((done) => setTimeout(done, 700)); // what is heard waits for a hand to rest
const heard = Object.fromEntries([...document.querySelectorAll('[data-figure]')].map((root) =>
  [root.dataset.figure, root.querySelector('[role=status]')?.textContent === root.querySelector('.fig-says')?.textContent]));
const asked = performance.getEntriesByType('resource').map(({ name }) => name);
await fetch('report', { method: 'POST', body: JSON.stringify({ figures, heard, violations, errors, asked, places }) });
