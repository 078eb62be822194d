// What a page does for its reader: formulas are drawn, interactive figures are loaded, words of the glossary explain
// themselves on the spot, images grow, and what is wider than its column can be scrolled by keys.

const root = new URL('..', document.currentScript.src);

// Formulas stand in the page as TeX, between \( and \) or \[ and \]. Where KaTeX could not be fetched, they stay so.
const drawFormulas = (within) => {
  for (const formula of window.katex ? within.querySelectorAll('.math:not(:has(.katex))') : []) {
    const number = formula.querySelector('.eqno');
    const source = /\\[([](.*)\\[)\]]/s.exec(formula.textContent)[1];
    katex.render(source, formula, { displayMode: formula.localName === 'div', throwOnError: false });
    if (number) formula.prepend(number);
  }
};

// Only where a page holds a figure: other pages load nothing of it.
const loadFigures = () => {
  if (!document.querySelector('[data-figure]')) return;
  const style = Object.assign(document.createElement('link'), { rel: 'stylesheet', href: new URL('figures/figures.css', root) });
  document.head.append(style);
  import(new URL('figures/page.mjs', root));
};

const letKeysScroll = () => {
  for (const box of document.querySelectorAll('div.math, .cell_output > .output, .pst-scrollable-table-container, pre')) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute('tabindex');
  }
};

// A figure fills the window at a click, a tap or a key; the same closes it, and so does Escape.
const enlargeFigures = () => {
  const dialog = Object.assign(document.createElement('dialog'), { className: 'enlarged', ariaLabel: 'Figure, enlarged' });
  const close = Object.assign(document.createElement('button'), { type: 'button', textContent: 'Close' });
  dialog.addEventListener('click', () => dialog.close());
  document.body.append(dialog);
  for (const image of document.querySelectorAll('.bd-article img:not(a img, picture img, .live img)')) {
    const button = Object.assign(document.createElement('button'), { type: 'button', className: 'enlarge' });
    button.addEventListener('click', () => { dialog.replaceChildren(close, image.cloneNode()); dialog.showModal(); });
    image.replaceWith(button);
    button.append(image);
  }
};

// A definition shows while its word has the pointer or the focus, stays while the pointer is on it; Escape closes it.
const explainWords = () => {
  const words = document.querySelectorAll('a[href*="#term-"]');
  if (!words.length) return;
  const note = document.createElement('div');
  note.id = 'definition';
  note.setAttribute('role', 'tooltip');
  note.hidden = true;
  document.body.append(note);
  let word = null;
  let later = 0;
  let glossary = null;

  const definition = async ({ href }) => {
    glossary ??= fetch(href).then((answer) => answer.text()).then((text) => new DOMParser().parseFromString(text, 'text/html'));
    let entry = (await glossary).getElementById(new URL(href).hash.slice(1));
    while (entry && entry.localName !== 'dd') entry = entry.nextElementSibling; // several words may share a definition
    return entry?.cloneNode(true).childNodes ?? [];
  };
  const close = () => {
    clearTimeout(later);
    word?.removeAttribute('aria-describedby');
    note.hidden = true;
    word = null;
  };
  const place = () => {
    const { left, top, bottom } = word.getClientRects()[0]; // of a word that is broken, the first line
    const { width, height } = note.getBoundingClientRect();
    const under = bottom + height + 8 < innerHeight || top < height + 8;
    note.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - width - 8))}px`;
    note.style.top = `${under ? bottom + 2 : top - height - 2}px`;
  };
  const show = async (shown) => {
    close();
    word = shown;
    const content = await definition(shown);
    if (word !== shown || !content.length) return;
    note.replaceChildren(...content);
    drawFormulas(note);
    word.setAttribute('aria-describedby', note.id);
    note.hidden = false;
    place();
  };
  const soon = (act, wait) => {
    clearTimeout(later);
    later = setTimeout(act, wait);
  };

  for (const one of words) {
    one.addEventListener('mouseenter', () => soon(() => show(one), 200));
    one.addEventListener('mouseleave', () => soon(close, 300));
    one.addEventListener('focus', () => show(one));
    one.addEventListener('blur', close);
  }
  note.addEventListener('mouseenter', () => clearTimeout(later));
  note.addEventListener('mouseleave', () => soon(close, 300));
  // The focus brings a word into sight by scrolling: its definition goes with it.
  addEventListener('scroll', () => word && (word === document.activeElement ? place() : close()), { passive: true });
  addEventListener('keydown', ({ key }) => key === 'Escape' && close());
};

addEventListener('DOMContentLoaded', () => {
  drawFormulas(document);
  enlargeFigures();
  loadFigures();
  explainWords();
});
addEventListener('load', letKeysScroll); // not before the fonts are there
addEventListener('resize', letKeysScroll);
