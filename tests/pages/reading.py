"""What a page looks like when it opens on a desktop: its first figure, its code, its formulas, its images."""

from chromium import Page

FIRST_FIGURE = 600  # CSS pixels from the top, on a screen of 1400 × 900
# A chapter is a page with cells. What is folded is unfolded once the place of the first figure is known.
MEASURE = """
(() => {
  const article = document.querySelector('article.bd-article') ?? document.body;
  const wrong = [];
  const all = (selector) => [...article.querySelectorAll(selector)];
  const none = (found, words) => {
    if (found.length) wrong.push(`${found.length} ${words}, first ${found[0].outerHTML.slice(0, 100)}`);
  };
  if (all('div.cell').length) {
    if (!article.querySelector('h1 .section-number')) wrong.push('the chapter has no number');
    const first = article.querySelector('img, figure, [data-figure] svg');
    const top = first ? Math.round(first.getBoundingClientRect().top + scrollY) : Infinity;
    if (top > %d) wrong.push(`the first figure begins ${top} pixels down`);
  }
  for (const folded of all('.cell details')) folded.open = true;
  const scrolls = ({ scrollWidth, clientWidth }) => scrollWidth > clientWidth + 1;
  none(all('.cell_input pre').filter(scrolls), 'cells of code scroll sideways');
  none(all('.math').filter((formula) => !formula.querySelector('.katex')), 'formulas are not drawn');
  none(all('.katex-error'), 'formulas are wrong');
  none(all('img[src^="data:"]'), 'images stand in the page instead of beside it');
  const unsaid = ({ ariaLabel, textContent }) => /hidden content|code cell/.test((ariaLabel ?? '') + textContent);
  none(all('summary').filter(unsaid), 'folds do not say what is in them');
  // At their own size the labels of figures are 11 pixels high: recseg.viz.plotting.
  const figures = all('.cell_output img[width]');
  none(figures.filter((figure) => figure.offsetWidth < figure.getAttribute('width')), 'figures are shrunk');
  const wide = (figure) => figure.offsetWidth > figure.closest('.cell_output').clientWidth;
  none(figures.filter(wide), 'figures scroll sideways');
  none(all('th').filter((cell) => !cell.textContent.trim()), 'cells of table heads are empty');
  const level = ({ localName }) => Number(localName[1]);
  none(all('h1, h2, h3, h4, h5, h6').filter((heading, place, list) =>
    place && level(heading) > level(list[place - 1]) + 1), 'headings skip a level');
  for (const name of ['description', 'og:image'])
    if (!document.querySelector(`meta[name="${name}"]`)) wrong.push(`no ${name} for search and sharing`);
  return wrong;
})()
"""


def findings(page: Page) -> list[str]:
    """What is wrong with the open page at 1400 × 900."""
    return list(page.evaluate(MEASURE % FIRST_FIGURE))
