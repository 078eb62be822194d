// What tests/test_live.py lets a browser do: use the live page as a reader does, and its modules as a program does.

import { Engine } from './live/engine.mjs';
import { address, bytes, manifest as readManifest } from './live/fetching.mjs';
import { fuse } from './live/fusion.mjs';
import { correlation, notable } from './live/maps.mjs';
import { Network } from './live/network.mjs';
import { planes, resize } from './live/pixels.mjs';
import { recorded } from './live/recorded.mjs';
import { kinds, loadRuntime } from './live/runtime.mjs';
import { fromAddress } from './live/sources.mjs';

const violations = [];
addEventListener('securitypolicyviolation', ({ blockedURI }) => violations.push(blockedURI));
const part = (name) => document.querySelector(`[data-live=${name}]`);
const until = async (condition) => {
  while (!condition()) {
    if (/could not|failed|Cannot/.test(part('status').textContent)) throw new Error(part('status').textContent);
    await new Promise((done) => setTimeout(done, 50));
  }
};
const resources = () => performance.getEntriesByType('resource').map(({ name }) => name);
const titles = () => [...part('list').children].map((row) => row.querySelector('strong').textContent);
const plain = (steps) => steps.map(({ stop, scores = [], mask, maps }) => {
  const values = (name) => maps[name]?.map((map) => [...map.data]);
  const [h, c, gate, attention] = ['h', 'c', 'output_gate', 'attention'].map(values);
  return { stop, scores: [...scores], mask: [...(mask?.data ?? [])], h, c, gate, attention };
});

const report = { violations };
try {
  // As a reader: open the page, see the recorded steps, point at the demo, and wait for the network's own.
  await import('./live/app.mjs');
  await until(() => part('source').textContent.includes('recorded'));
  report.before = resources();
  report.recordedList = titles();
  part('app').dispatchEvent(new Event('pointermove'));
  await until(() => part('source').textContent.includes('computed here'));
  report.list = titles();
  part('app').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft', bubbles: true }));
  report.title = part('panel').querySelector('.live-title').textContent;

  // As a program: the networks on given pixels, by the processor and, where there is a card, by the card.
  const manifest = await readManifest();
  const { data, height, width } = await (await fetch('input.json')).json();
  report.kinds = await kinds();
  report.card = Boolean(await navigator.gpu?.requestAdapter());
  report.found = [];
  let before;
  for (const kind of report.card ? ['wasm', 'webgpu'] : ['wasm']) {
    const files = manifest.runtimes[kind];
    const runtime = await loadRuntime(files, kind, await bytes(files.binary));
    for (const about of manifest.networks) {
      const padding = { stride: about.stride, colour: manifest.padding };
      const graphs = { encode: await bytes(about.graphs.encode.file), step: await bytes(about.graphs.step.file) };
      const network = await Network.open(runtime, graphs, about, padding);
      const judge = await Network.open(runtime.onProcessor, graphs, about, padding);
      const agrees = Boolean(before && (await network.agrees(before))); // with another network
      const itself = await network.agrees(judge);
      before = network;
      const steps = [];
      for await (const step of network.steps({ data: Float32Array.from(data), height, width })) {
        if (step.encoded === undefined) steps.push(step);
      }
      const taken = steps.filter(({ ended }) => !ended);
      const labels = [...fuse(taken, height, width)];
      report.found.push({ network: about.name, kind, steps: plain(steps), agrees, itself, labels });
    }
  }

  // The recorded steps of an image, and those that the worker computes.
  const about = manifest.networks.find(({ name }) => name === 'mild');
  const [item] = about.gallery;
  const canvas = await fromAddress(address(item.file));
  const engine = new Engine(manifest);
  const opened = await engine.open(about, 'wasm');
  const live = [];
  const rgba = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  await engine.segment(opened, rgba, (step) => step.encoded === undefined && live.push(step));
  report.live = plain(live);
  report.recorded = plain(await recorded(item.recorded));
  report.notable = notable(live, 1, 'h').map(({ channel }) => channel);
  report.correlation = correlation([1, 2, 4], [2, 4, 8]);

  const odd = await fromAddress('odd.png');
  const pixels = odd.getContext('2d').getImageData(0, 0, odd.width, odd.height);
  report.resized = [...planes(resize(pixels, [32, 47])).data];
} catch (error) {
  report.error = `${error.message} ${error.stack}`;
}
report.after = resources();
await fetch('report', { method: 'POST', body: JSON.stringify(report) });
