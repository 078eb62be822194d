"""What a reader does with a page, done under its policy: search, themes, copies, folds, the glossary."""

from chromium import Page

# Each answers true, or what is wrong.
CHAPTER = {
    "the theme switch": """
      (async () => {
        const themes = new Set();
        for (let turn = 0; turn < 3; turn += 1) {
          document.querySelector('.theme-switch-button').click();
          themes.add(document.documentElement.dataset.theme);
        }
        return themes.has('light') && themes.has('dark') || `themes: ${[...themes]}`;
      })()""",
    "the copy buttons": """
      (async () => {
        const button = document.querySelector('button.copybtn');
        button.click();
        await new Promise((done) => setTimeout(done, 300));
        return button.classList.contains('success') || 'a click changes nothing';
      })()""",
    "folded cells": """
      (async () => {
        const folded = document.querySelector('details.hide, details.toggle-details, details');
        const before = folded.open;
        folded.querySelector('summary').click();
        await new Promise((done) => setTimeout(done, 100));
        return folded.open !== before || 'a click does not unfold';
      })()""",
    "figures": """
      (async () => {
        const figure = document.querySelector('button.enlarge');
        if (!figure.ariaLabel && !figure.querySelector('img[alt]')) return 'nothing names their button';
        figure.focus();
        figure.click();
        const shown = document.querySelector('dialog:modal img');
        if (!shown || shown.getBoundingClientRect().width < 0.9 * innerWidth) return 'a click does not enlarge them';
        document.querySelector('dialog').close();
        return document.activeElement === figure || 'the focus is lost when one is closed';
      })()""",
    "the search field": """
      (async () => {
        document.querySelector('.search-button__button').click();
        await new Promise((done) => setTimeout(done, 400));
        return document.activeElement.matches('input[type=search]') || 'is not opened by its button';
      })()""",
}
GLOSSARY = """
(async () => {
  const term = document.querySelector('a[href*="#term-"]');
  if (!term) return 'no word of the glossary is linked on the page';
  term.focus();
  const note = document.querySelector('[role=tooltip]');
  for (let turn = 0; turn < 50 && note?.hidden; turn += 1) await new Promise((done) => setTimeout(done, 100));
  if (!note || note.hidden) return 'a focused word shows no definition';
  if (term.getAttribute('aria-describedby') !== note.id) return 'the definition is not told to screen readers';
  document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));
  return note.hidden || 'Escape does not close the definition';
})()
"""
# What is looked for, and a page that has to be among the first: a word of the text, a synonym, two words.
FINDS = {"ConvLSTM": "ConvLSTM", "bipartite": "Glossary", "learning rate": "Training"}
SEARCH = """
(async () => {
  for (let turn = 0; turn < 100; turn += 1) {
    const found = [...document.querySelectorAll('#search-results li a')].slice(0, 5);
    if (found.some(({ textContent }) => textContent.includes('%s'))) return true;
    await new Promise((done) => setTimeout(done, 100));
  }
  return 'not among the first five pages';
})()
"""


def chapter(page: Page) -> list[str]:
    """What does not work on an open chapter."""
    page.size(1400, 900)
    wrong = []
    for what, script in CHAPTER.items():
        if (answer := page.evaluate(script, by_reader=True)) is not True:
            wrong.append(f"{what}: {answer}")
    return wrong


def _one(page: Page, what: str, script: str) -> list[str]:
    answer = page.evaluate(script, by_reader=True)
    return [] if answer is True else [f"{what}: {answer}"]


def glossary(page: Page) -> list[str]:
    """Whether a word of the glossary explains itself on the open page."""
    return _one(page, "the glossary", GLOSSARY)


def search(page: Page) -> list[str]:
    """Whether the open search page finds what it should."""
    wrong = []
    for words, title in FINDS.items():
        page.open(page.evaluate("location.origin + location.pathname") + f"?q={words.replace(' ', '+')}")
        wrong += _one(page, f"the search for {words}", SEARCH % title)
    return wrong
