// What tests/test_live.py lets a browser do: use the live page as a reader does, and its modules as a program does.

import { bytes, loadNetwork, manifest as readManifest } from './live/fetching.mjs';
import { Network } from './live/network.mjs';
import { planes, resize } from './live/pixels.mjs';
import { fromAddress } from './live/sources.mjs';

const violations = [];
addEventListener('securitypolicyviolation', ({ blockedURI }) => violations.push(blockedURI));
const part = (name) => document.querySelector(`[data-live=${name}]`);
const report = { violations };
try {
  // As a reader: open the page, load the model, wait for the steps of the first picture of the gallery.
  await import('./live/app.mjs');
  report.before = performance.getEntriesByType('resource').map(({ name }) => name);
  part('load').click();
  while (!part('status').textContent.startsWith('Looked once')) {
    if (/could not|failed/.test(part('status').textContent)) throw new Error(part('status').textContent);
    await new Promise((done) => setTimeout(done, 50));
  }
  report.list = [...part('list').children].map((row) => row.textContent);
  part('app').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft', bubbles: true }));
  report.title = part('panel').querySelector('h3').textContent;

  // As a program: the same network on given pixels.
  const manifest = await readManifest();
  const { ort, graphs } = await loadNetwork(manifest, manifest.networks[0]);
  const padding = { stride: manifest.networks[0].stride, colour: manifest.padding };
  const network = await Network.open(ort, graphs, manifest.networks[0], padding);
  const { data, height, width } = await (await fetch('input.json')).json();
  report.steps = [];
  for await (const { look, stop, mask, scores, maps } of network.steps({ data: Float32Array.from(data), height, width })) {
    if (look !== undefined) continue;
    const [h, c, gate] = ['h', 'c', 'output_gate'].map((name) => maps[name].map((map) => [...map.data]));
    report.steps.push({ stop, scores: [...(scores ?? [])], mask: [...(mask?.data ?? [])], h, c, gate });
  }
  const canvas = await fromAddress('odd.png');
  const rgba = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  report.resized = [...planes(resize(rgba, [32, 47])).data];
} catch (error) {
  report.error = `${error.message} ${error.stack}`;
}
report.after = performance.getEntriesByType('resource').map(({ name }) => name);
await fetch('report', { method: 'POST', body: JSON.stringify(report) });
