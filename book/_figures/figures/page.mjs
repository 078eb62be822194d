// Loaded on pages that hold a figure, and there alone: book/_static/reader.js. Each element with data-figure="NAME"
// gets the figure of NAME.mjs. Where that fails, the text that stands in the element says what the figure would show.

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
