"""Whether a page fits a narrow telephone: nothing may reach out of it sideways, but what scrolls in its own box."""

from typing import Any

from chromium import Page

NARROW = 360  # CSS pixels

MEASURE = """
(() => {
  const width = document.documentElement.clientWidth;
  // In a box that scrolls by itself, or in a drawer that waits beside the screen.
  const kept = ({ overflowX, position }) => ['auto', 'scroll'].includes(overflowX) || position === 'fixed';
  const scrolls = (element) => element && element !== document.body
    && (kept(getComputedStyle(element)) || scrolls(element.parentElement));
  const wide = [...document.querySelectorAll('main *')].filter((element) => {
    const { right, width: own, height } = element.getBoundingClientRect();
    // KaTeX hides MathML for screen readers in a box of one pixel, and cuts the bars of its roots.
    if (element.closest('.katex-mathml, .hide-tail')) return false;
    return own > 1 && height > 1 && right > width + 1 && !scrolls(element);
  });
  const name = (element) => `${element.tagName.toLowerCase()}.${element.className}`.slice(0, 60);
  return { width, whole: document.documentElement.scrollWidth, wide: wide.map(name) };
})()
"""


def findings(page: Page) -> list[str]:
    """What reaches out of the open page at 360 pixels."""
    page.size(NARROW, 740)
    page.settle()
    measured: dict[str, Any] = page.evaluate(MEASURE)
    wide = ", ".join(dict.fromkeys(measured["wide"][:5]))
    if measured["whole"] > measured["width"] or wide:
        return [f"{measured['whole']} pixels wide on a screen of {measured['width']}: {wide or 'outside of the text'}"]
    return []
