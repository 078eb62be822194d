// Loaded by book/_static/reader.js, only on pages that have a figure. Each element with data-figure="NAME" gets the
// figure of NAME.mjs. If that fails, the text inside the element still says what the figure would show.

import { mount } from './kit.mjs';

for (const root of document.querySelectorAll('[data-figure]')) {
  const name = root.dataset.figure;
  if (/^[a-z]+$/.test(name)) {
    try {
      mount(root, await import(`./${name}.mjs`));
    } catch (error) {
      console.error(`figure ${name}:`, error);
    }
  }
}
