"""The live demo in use: what a reader does with it, and may do wrong. The network itself: tests/test_live.py."""

from chromium import PATIENCE, Page

SLOWEST = 1500  # ms from the first hint of interest to the network's own steps, on an idle machine
FROZEN = 1500  # ms; on a busy machine the page itself waits for its turn

PATIENT = str(PATIENCE * 800)  # ms
# Of the scripts below; `until` waits for a condition, and says false when a reader would have given up.
TOOLS = """
window.demo = (() => {
  const part = (name) => document.querySelector(`[data-live=${name}]`);
  const until = async (condition, ms = PATIENT) => {
    for (const end = performance.now() + ms; performance.now() < end;) {
      if (condition()) return true;
      await new Promise((done) => setTimeout(done, 50));
    }
    return false;
  };
  const source = () => part('source').textContent;
  const pressed = () => document.querySelectorAll('.live-gallery [aria-pressed=true]');
  const drop = (...files) => {
    const dataTransfer = new DataTransfer();
    for (const file of files) dataTransfer.items.add(file);
    document.body.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
  };
  const picture = async () => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 48 });
    canvas.getContext('2d').fillRect(8, 8, 20, 20);
    return new File([await new Promise((done) => canvas.toBlob(done))], 'own.png', { type: 'image/png' });
  };
  const pixels = () => {
    const { width, height } = part('image');
    return part('image').getContext('2d').getImageData(0, 0, width, height).data;
  };
  const below = () => {
    for (const name of ['image', 'play', 'list', 'source']) {
      const { bottom } = part(name).getBoundingClientRect();
      if (bottom > innerHeight) return `${name} ends at ${Math.round(bottom)} of ${innerHeight} pixels`;
    }
    return '';
  };
  const fetched = () => performance.getEntriesByType('resource').filter(({ name }) => /onnx\\.gz|wasm/.test(name));
  return { part, until, source, pressed, drop, picture, pixels, below, fetched };
})();
""".replace("PATIENT", PATIENT)

NAMES = "const { part, until, source, pressed, drop, picture, pixels, below, fetched } = window.demo;"

# In this order: the network is fetched by the first hint of interest. Each answers true, or what is wrong.
USES = {
    "what opening the page shows": """
      if (!await until(() => source().includes('recorded'))) return `no recorded answer: ${part('status').textContent}`;
      if (!part('list').children.length) return 'no step is shown';
      const idle = fetched().length === 0 && part('run').textContent.startsWith('Run it in your browser');
      return idle || 'the network is fetched before anybody uses the demo';""",
    "the first screen": """
      return below() || true;""",
    "the image that is shown": """
      return pressed().length === 1 || `${pressed().length} images of the gallery are marked`;""",
    "the headings": """
      const headings = [...document.querySelectorAll('main :is(h1, h2, h3, h4, h5, h6)')];
      const levels = headings.map(({ tagName }) => Number(tagName[1]));
      return levels.every((level, at) => level <= (levels[at - 1] ?? 0) + 1) || `their levels: ${levels}`;""",
    "the labels": """
      const silent = [...part('app').querySelectorAll('button, select, input')].filter((control) =>
        !/\\w/.test(control.textContent) && !control.ariaLabel && !control.labels?.length
        && !control.querySelector('img[alt]'));
      return silent.length === 0 || `nothing names ${silent[0].outerHTML}`;""",
    "the colours of classes": """
      const { palette } = await (await fetch('live/files/manifest.json')).json();
      const dark = palette.slice(1, 21).filter(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b < 80);
      return dark.length === 0 || `too dark for a photograph: ${dark.join('; ')}`;""",
    "the maps of the state": """
      return !part('state').open && !part('maps').checkVisibility() || 'are not folded';""",
    "a text file that is dropped": """
      const before = [source(), part('list').textContent];
      drop(new File(['hello'], 'notes.txt', { type: 'text/plain' }));
      if (!await until(() => part('status').textContent.startsWith('notes.txt is not an image'), 3000))
        return `nothing is said: ${part('status').textContent}`;
      return before.join() === [source(), part('list').textContent].join() || 'the answer is gone';""",
    "a text file called an image": """
      drop(new File(['hello'], 'fake.png', { type: 'image/png' }));
      return await until(() => part('status').textContent.startsWith('fake.png is not an image'), 3000)
        || `nothing is said: ${part('status').textContent}`;""",
    "a drop without a file": """
      drop();
      return await until(() => part('status').textContent.includes('not a file'), 3000) || 'nothing is said';""",
    "the attention of a step": """
      const before = pixels();
      const step = part('list').querySelector('button');
      step.dispatchEvent(new PointerEvent('pointerenter', { pointerType: 'mouse' }));
      const during = pixels();
      step.dispatchEvent(new PointerEvent('pointerleave', { pointerType: 'mouse' }));
      if (before.every((value, at) => value === during[at])) return 'pointing at the step changes nothing';
      return pixels().every((value, at) => value === before[at]) || 'stays after the pointer has left';""",
    "the one button": """
      const button = part('run');
      button.focus();
      button.click();
      window.stalls = 0;
      for (let last = performance.now(); !source().includes('computed here') || !part('list').children.length;) {
        if (/could not|failed/.test(part('status').textContent)) return part('status').textContent;
        if (performance.now() - window.pageStart > PATIENT) return `does not answer: ${part('status').textContent}`;
        await new Promise((done) => setTimeout(done, 10));
        window.stalls = Math.max(window.stalls, performance.now() - last);
        last = performance.now();
      }
      if (document.activeElement !== button) return 'loses the focus';
      return await until(() => part('status').textContent.includes('Encoded once')) || 'does not come to an end';""",
    "another image while a network is there": """
      const before = part('list').textContent;
      const [, , button] = document.querySelectorAll('.live-gallery button'); // a square image
      button.click();
      if (!await until(() => part('list').textContent !== before && part('status').textContent.includes('Encoded')))
        return 'no answer';
      if (pressed()[0] !== button) return 'it is not marked';
      return below() || source().includes('computed here') || `not by the network: ${source()}`;""",
    "the maps of the state, unfolded": """
      part('state').open = true;
      await until(() => part('maps').querySelector('figure'), 3000);
      const words = [...part('maps').querySelectorAll('figcaption')].map(({ textContent }) => textContent);
      part('state').open = false;
      return words.length === 4 && new Set(words).size === 4 || `not four maps with words: ${words}`;""",
    "an image of one's own": """
      drop(await picture());
      if (!await until(() => pressed().length === 0)) return 'an image of the gallery is still marked';
      return await until(() => part('status').textContent.includes('Encoded once')) || 'no answer';""",
    "another network": """
      const other = part('network').options[1];
      if (!other) return true;
      part('network').value = other.value;
      part('network').dispatchEvent(new Event('change', { bubbles: true }));
      // At once: no answer of the first network under the second one's name.
      if (part('list').children.length && !source().startsWith(other.textContent)) return 'the old answer stays';
      if (part('list').children.length) return 'the old answer stands under the new name';
      return await until(() => source().includes('computed here') && source().startsWith(other.textContent)
        && part('status').textContent.includes('Encoded once')) || `no answer: ${part('status').textContent}`;""",
    "the ground truth": """
      document.querySelector('.live-gallery button').click();
      if (!await until(() => part('truth').checkVisibility())) return 'is not shown';
      if (!part('truthwords').textContent.startsWith('Ground truth: ')) return 'is not told in words';
      return await until(() => part('truthmap').checkVisibility(), 5000) || 'its label map is not shown';""",
    "the camera": """
      part('camera').click();
      if (!await until(() => /^[1-9]|^0\\.[1-9]/.test(part('rate').textContent)))
        return `no rate: ${part('rate').textContent} ${part('status').textContent}`;
      if (!source().includes('camera')) return `whose answer? ${source()}`;
      part('camera').click();
      return await until(() => part('rate').textContent === '', 5000) || 'does not stop';""",
}

WATCH = """
addEventListener('DOMContentLoaded', () => {
  const source = document.querySelector('[data-live=source]');
  const first = (what, name) => { if (source.textContent.includes(what)) window[name] ??= performance.now(); };
  new MutationObserver(() => { first('recorded', 'recorded'); first('computed here', 'computed'); })
    .observe(source, { childList: true });
});
"""
MEASURE = """
(async () => {
  const wait = async (name) => {
    while (window[name] === undefined) await new Promise((done) => setTimeout(done, 10));
  };
  await wait('recorded');
  const start = performance.now();
  document.querySelector('[data-live=app]').dispatchEvent(new Event('pointermove'));
  await wait('computed');
  const paint = performance.getEntriesByName('first-contentful-paint')[0].startTime;
  return { recorded: Math.round(window.recorded - paint), first_live_step: Math.round(window.computed - start) };
})()
"""


def live(page: Page) -> list[str]:
    """What does not work on the open live page."""
    page.size(1400, 900)
    missing = page.evaluate("fetch('live/files/manifest.json').then((answer) => answer.json())")["missing"]
    if missing:
        return [f"the live demo: skipped: {'; '.join(missing)}"]
    page.evaluate(f"{TOOLS} window.pageStart = performance.now(); true")
    wrong = []
    for what, script in USES.items():
        answer = page.evaluate(
            f"(async () => {{ {NAMES} {script.replace('PATIENT', PATIENT)} }})()",
            by_reader=True,
        )
        if answer is not True:
            wrong.append(f"{what}: {answer}")
    stalls = page.evaluate("window.stalls")
    if stalls > FROZEN:
        wrong.append(f"the page: frozen for {stalls:.0f} ms while the network was loaded and ran")
    return wrong


def measure(page: Page) -> dict[str, int]:
    """How soon recorded steps come after a page's first paint, and the network's own after a hint of interest: ms."""
    found: dict[str, int] = page.evaluate(MEASURE)
    return found
