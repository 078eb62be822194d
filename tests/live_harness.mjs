// What tests/test_live.py lets a browser do: use the live page as a reader does, and its modules as a program does.

import { graphsOf, manifest as readManifest } from './live/fetching.mjs';
import { Network } from './live/network.mjs';
import { planes, resize } from './live/pixels.mjs';
import { kinds, loadRuntime } from './live/runtime.mjs';
import { fromAddress } from './live/sources.mjs';

const violations = [];
addEventListener('securitypolicyviolation', ({ blockedURI }) => violations.push(blockedURI));
const part = (name) => document.querySelector(`[data-live=${name}]`);
const report = { violations };
try {
  // As a reader: open the page, load the model, wait for the steps of the first image of the gallery.
  await import('./live/app.mjs');
  report.before = performance.getEntriesByType('resource').map(({ name }) => name);
  part('load').click();
  while (!part('status').textContent.startsWith('Encoded once')) {
    if (/could not|failed/.test(part('status').textContent)) throw new Error(part('status').textContent);
    await new Promise((done) => setTimeout(done, 50));
  }
  report.list = [...part('list').children].map((row) => row.textContent);
  part('app').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft', bubbles: true }));
  report.title = part('panel').querySelector('h3').textContent;

  // As a program: the networks on given pixels, by the processor and, where there is a card, by the card.
  const manifest = await readManifest();
  const { data, height, width } = await (await fetch('input.json')).json();
  report.kinds = await kinds();
  report.card = Boolean(await navigator.gpu?.requestAdapter());
  report.found = [];
  let before;
  for (const kind of report.card ? ['wasm', 'webgpu'] : ['wasm']) {
    const runtime = await loadRuntime(manifest.runtimes[kind], kind);
    for (const about of manifest.networks) {
      const padding = { stride: about.stride, colour: manifest.padding };
      const graphs = await graphsOf(about);
      const network = await Network.open(runtime, graphs, about, padding);
      const judge = await Network.open(runtime.onProcessor, graphs, about, padding);
      const agrees = Boolean(before && network.agrees(before)); // with another network
      const itself = network.agrees(judge);
      before = network;
      const steps = [];
      report.found.push({ network: about.name, kind, steps, agrees, itself });
      for await (const step of network.steps({ data: Float32Array.from(data), height, width })) {
        const { encoded, stop, mask, scores, maps } = step;
        if (encoded !== undefined) continue;
        const values = (name) => maps[name]?.map((map) => [...map.data]);
        const [h, c, gate, attention] = ['h', 'c', 'output_gate', 'attention'].map(values);
        steps.push({ stop, scores: [...(scores ?? [])], mask: [...(mask?.data ?? [])], h, c, gate, attention });
      }
    }
  }
  const canvas = await fromAddress('odd.png');
  const rgba = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  report.resized = [...planes(resize(rgba, [32, 47])).data];
} catch (error) {
  report.error = `${error.message} ${error.stack}`;
}
report.after = performance.getEntriesByType('resource').map(({ name }) => name);
await fetch('report', { method: 'POST', body: JSON.stringify(report) });
