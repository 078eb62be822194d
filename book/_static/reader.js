// What a reader does with a page: print it, fill the screen with it, and look up words of the glossary on the spot.
// A definition shows while its word has the pointer or the focus, stays while the pointer is on it, and Escape closes it.

addEventListener('DOMContentLoaded', () => {
  const actions = {
    print: () => window.print(),
    fullscreen: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
  };
  for (const button of document.querySelectorAll('[data-reader-action]')) {
    button.addEventListener('click', actions[button.dataset.readerAction]);
  }

  // A formula wider than its column scrolls, and has to be reached to be scrolled by keys.
  const reach = () => {
    for (const formula of document.querySelectorAll('div.math')) {
      if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
      else formula.removeAttribute('tabindex');
    }
  };
  addEventListener('load', reach); // not before the fonts are there
  addEventListener('resize', reach);

  const words = document.querySelectorAll('a[data-definition]');
  if (!words.length) return;
  const note = document.createElement('div');
  note.id = 'definition';
  note.setAttribute('role', 'tooltip');
  note.hidden = true;
  document.body.append(note);
  let word = null;
  let later = 0;

  const close = () => {
    clearTimeout(later);
    word?.removeAttribute('aria-describedby');
    note.hidden = true;
    word = null;
  };
  const show = (shown) => {
    close();
    word = shown;
    word.setAttribute('aria-describedby', note.id);
    note.textContent = word.dataset.definition;
    note.hidden = false;
    const { left, top, bottom } = word.getClientRects()[0]; // of a word that is broken, the first line
    const { width, height } = note.getBoundingClientRect();
    const under = bottom + height + 8 < innerHeight || top < height + 8;
    note.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - width - 8))}px`;
    note.style.top = `${under ? bottom + 2 : top - height - 2}px`;
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
  addEventListener('scroll', close, { passive: true });
  addEventListener('keydown', ({ key }) => key === 'Escape' && close());
});
