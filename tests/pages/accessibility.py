"""What axe-core finds wrong with a page for readers who hear it, steer it by keyboard, or see little contrast."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from chromium import Page

HERE = Path(__file__).resolve().parent
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
GRAVE = {"serious", "critical"}
EXAMPLES = 3  # places named of a finding

UNFOLD = "for (const folded of document.querySelectorAll('details')) folded.open = true"
RUN = """
(async () => {
  const { violations } = await axe.run(document, { runOnly: %s, preload: false, resultTypes: ['violations'] });
  return violations.map(({ id, impact, nodes }) => ({ id, impact, places: nodes.map(
    ({ html, any, all, none, impact }) => ({ html, impact, why: [...any, ...all, ...none][0]?.message })) }));
})()
"""


def fetch() -> tuple[str | None, str]:
    """The source of axe-core, in the version of package-lock.json, and why it is missing if it is."""
    source = HERE / "node_modules" / "axe-core" / "axe.min.js"
    if not source.is_file():
        if shutil.which("npm") is None:
            return None, "npm (it comes with Node.js) was not found"
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--fetch-retries=1"]
        try:
            subprocess.run(command, cwd=HERE, check=True, capture_output=True, timeout=240)
        except (subprocess.SubprocessError, OSError):
            return None, "npm could not fetch axe-core (is the network reachable?)"
    return source.read_text(encoding="utf-8"), ""


def findings(page: Page, axe: str) -> list[str]:
    """Each serious or critical finding on the open page, with the first places where it stands."""
    page.evaluate(UNFOLD)  # what is folded is read, too
    page.settle()  # text that fades in is pale at first
    page.evaluate(axe)
    found: list[dict[str, Any]] = page.evaluate(RUN % RULES)
    lines = []
    for finding in found:
        places = [place for place in finding["places"] if place["impact"] in GRAVE]
        shown = "; ".join(f"{place['html'][:160]} ({place['why']})" for place in places[:EXAMPLES])
        lines += [f"{finding['id']} ({finding['impact']}) in {len(places)} places: {shown}"] if places else []
    return lines
