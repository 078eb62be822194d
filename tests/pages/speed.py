"""How heavy a page is, and how soon a reader can read and use it: opened from this machine, with nothing in a cache."""

import re
from pathlib import Path
from statistics import median
from typing import Any

from chromium import Browser

HEAVIEST = 1_000_000  # bytes before figures
HEAVIEST_WHOLE = 3_000_000  # with all of them, those further down too
ROUNDS = 3
QUIET = 2000  # ms without a long task (50 ms and longer) make a page one that answers
PICTURES = re.compile(r"data:(?:image|video|audio)/[^\"')\s]*")

WATCH = """
window.longTasks = [];
new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map(
  ({ startTime, duration }) => startTime + duration))).observe({ type: 'longtask', buffered: true });
"""
# Figures wait until they come in sight.
LOAD_ALL = """
Promise.allSettled([...document.images].map((image) => { image.loading = 'eager'; return image.decode(); }))
  .then(() => true)
"""
# Interactive: after the first paint and the last long task that is followed by quiet.
WAIT = """
(async () => {
  const last = () => Math.max(0, ...window.longTasks);
  const paint = () => performance.getEntriesByName('first-contentful-paint')[0]?.startTime;
  while (paint() === undefined || performance.now() - Math.max(last(), paint()) < %d)
    await new Promise((done) => setTimeout(done, 100));
  return { paint: paint(), interactive: Math.max(last(), paint()) };
})()
"""


def measure(browser: Browser, address: str, rounds: int = ROUNDS) -> dict[str, float]:
    """First contentful paint and time to interactive in ms, each the median of some openings."""
    taken: list[dict[str, Any]] = []
    for _ in range(rounds):
        page = browser.page()
        page.before_scripts(WATCH)
        page.open(address)
        taken.append(page.evaluate(WAIT % QUIET))
        page.close()
    return {name: round(median(one[name] for one in taken)) for name in ("paint", "interactive")}


def weigh(browser: Browser, address: str, file: Path) -> tuple[int, int]:
    """Bytes that a page loads before its figures, and bytes of figures, uncompressed."""
    page = browser.page()
    page.open(address)
    page.evaluate(LOAD_ALL)
    kinds = {event["requestId"]: event["type"] for event in page.reported("Network.responseReceived")}
    addresses = {event["requestId"]: event["request"]["url"] for event in page.reported("Network.requestWillBeSent")}
    sizes: dict[str, int] = {}
    for event in page.reported("Network.dataReceived"):
        if not addresses.get(event["requestId"], "").startswith("data:"):
            sizes[event["requestId"]] = sizes.get(event["requestId"], 0) + event["dataLength"]
    page.close()
    drawn = sum(map(len, PICTURES.findall(file.read_text(encoding="utf-8"))))
    figures = sum(size for request, size in sizes.items() if kinds.get(request) in {"Image", "Media"})
    return sum(sizes.values()) - figures - drawn, figures + drawn
