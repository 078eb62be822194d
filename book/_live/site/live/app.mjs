// The live page: its controls, and what happens when one is used. The page's markup is in book/live.md.

import { describe, drawMaps, element, MAP_NAMES, ranking, sentence, swatch, time } from './view.mjs';
import { inside, paint, staged } from './drawing.mjs';
import { address, graphsOf, manifest as readManifest } from './fetching.mjs';
import { fuse } from './fusion.mjs';
import { Network } from './network.mjs';
import { planes, resize, resizedShape } from './pixels.mjs';
import { isLoaded, kinds, loadRuntime, PLACES } from './runtime.mjs';
import { acceptDrops, fromAddress, fromBlob, openCamera } from './sources.mjs';

const PAUSE = 700; // ms that a step stays, so that one can see it come
const ui = Object.fromEntries(Array.from(document.querySelectorAll('[data-live]'), (found) => [found.dataset.live, found]));
const calm = matchMedia('(prefers-reduced-motion: reduce)');
const rest = (ms) => new Promise((done) => setTimeout(done, ms));

let manifest;
let network; // the one that is loaded, or undefined
let place; // what it computes with: a kind of runtime.mjs
let image; // canvas in its own size
let background; // and in the stage's
let steps = []; // of network.mjs, with `labels` (what to paint) and `area`; the last may be the stop
let fused; // labels of all steps together
let position = 0; // 0: the image; 1 … N: a step; N + 1: all together
let following = true; // show each step as it comes, until the reader steps by hand
let encoded = 0; // ms of U-Net
let latest = 0; // counts the images, so that an old run knows that it is out of date
let playing = 0;
let camera;

const say = (text) => (ui.status.textContent = text);
const about = () => manifest.networks.find(({ name }) => name === ui.network.value);
const last = () => steps.filter(({ ended }) => !ended).length + (fused ? 1 : 0);

// ---------------------------------------------------------------------------------------------- loading

function offer() {
  const { graphs, name } = about();
  const here = network?.about.name === name && place === ui.place.value;
  const runtime = isLoaded(ui.place.value) ? 0 : manifest.runtimes[ui.place.value].bytes;
  const size = Object.values(graphs).reduce((sum, { bytes }) => sum + bytes, runtime);
  ui.load.textContent = here ? 'Loaded' : `Load the model (${(size / 1e6).toFixed(1)} MB)`;
  ui.load.disabled = here;
}

async function load() {
  const chosen = about();
  const kind = ui.place.value;
  const controls = [ui.load, ui.network, ui.place];
  for (const control of controls) control.disabled = true;
  const total = Object.values(chosen.graphs).reduce((sum, { bytes }) => sum + bytes, manifest.runtimes[kind].bytes);
  let arrived = isLoaded(kind) ? manifest.runtimes[kind].bytes : 0;
  Object.assign(ui.progress, { hidden: false, value: arrived, max: total });
  say('Loading …');
  try {
    const more = (bytes) => (ui.progress.value = arrived += bytes);
    const runtime = await loadRuntime(manifest.runtimes[kind], kind, more);
    const graphs = await graphsOf(chosen, more);
    say(`Preparing the ${PLACES[kind]} …`);
    const padding = { stride: chosen.stride, colour: manifest.padding };
    const opened = await Network.open(runtime, graphs, chosen, padding);
    if (kind !== 'wasm') {
      const judge = await Network.open(runtime.onProcessor, graphs, chosen, padding);
      await judge.close();
      if (!opened.agrees(judge)) throw new Error(`the ${PLACES[kind]} computes something else than the ${PLACES.wasm}`);
    }
    network = opened;
    place = kind;
    say('Ready.');
  } catch (error) {
    const advice = kind === 'wasm' ? '' : ` Choose the ${PLACES.wasm} instead.`;
    say(`The model could not be loaded: ${error.message}.${advice}`);
  }
  ui.progress.hidden = true;
  for (const control of controls) control.disabled = false;
  offer();
  if (network?.about === chosen && place === kind) await run();
}

// ---------------------------------------------------------------------------------------------- running

async function show(source) {
  stop();
  closeCamera();
  const mine = ++latest;
  try {
    const found = await source;
    if (mine !== latest) return; // meanwhile another one was chosen
    image = found;
  } catch (error) {
    say(error.message);
    return;
  }
  background = staged(image);
  await run();
}

let running = Promise.resolve(); // a graph runs once at a time

function run() {
  const mine = ++latest;
  running = running.then(() => segment(mine)).catch((error) => say(`The network failed: ${error.message}`));
  return running;
}

async function segment(mine) {
  if (mine !== latest || !image) return;
  stop();
  steps = [];
  fused = undefined;
  following = true;
  ui.list.replaceChildren();
  go(0);
  if (!network) {
    say('Load the model to segment this image.');
    return;
  }
  const { image_size: size } = network.about;
  const rgba = image.getContext('2d').getImageData(0, 0, image.width, image.height);
  const shape = resizedShape(rgba.height, rgba.width, size, manifest.longest);
  say('Encoding …');
  await rest(20); // let the page be drawn: the network holds it up
  for await (const step of network.steps(planes(resize(rgba, shape)))) {
    if (mine !== latest) return;
    if (step.encoded !== undefined) {
      encoded = step.encoded;
      continue;
    }
    add(step);
    if (following && !step.ended) go(steps.length);
    await rest(calm.matches || !following ? 0 : PAUSE);
    if (mine !== latest) return;
  }
  fused = fuse(steps.filter(({ ended }) => !ended), background.height, background.width);
  const spent = steps.reduce((sum, { ms }) => sum + ms, 0);
  const number = `${steps.length} time step${steps.length === 1 ? '' : 's'}`;
  say(`Encoded once: ${time(encoded)}. ${number}: ${time(spent)}. By the ${PLACES[place]}.`);
  go(following ? last() : position);
}

function add(step) {
  if (!step.ended) {
    const [{ label }] = ranking(step.scores);
    step.labels = inside(step.mask, background).map((covered) => covered * label);
    step.area = step.labels.reduce((sum, value) => sum + (value > 0), 0) / step.labels.length;
  }
  steps.push(step);
  const number = steps.length;
  const button = element('button', { type: 'button' }, sentence(step, number, network.about.classes));
  if (!step.ended) button.prepend(swatch(manifest.palette[ranking(step.scores)[0].label]));
  button.addEventListener('click', () => pick(number));
  ui.list.append(element('li', {}, button));
}

// ---------------------------------------------------------------------------------------------- stepping

function go(to) {
  position = Math.max(0, Math.min(to, last()));
  if (!background) return;
  const step = steps[position - 1];
  const together = fused && position === last();
  const labels = together ? fused : step?.labels;
  paint(ui.image, background, labels, manifest.palette, { dimmed: !together });
  const classes = network?.about.classes ?? [];
  describe(ui.panel, { steps, position, total: steps.length, classes, palette: manifest.palette, busy: network });
  drawMaps(ui.maps, ui.caption, { steps, position, background, name: ui.map.value });
  const text = ui.panel.querySelector('h3').textContent;
  ui.image.setAttribute('aria-label', `${text}, drawn over the image`);
  Object.assign(ui.slider, { max: last(), value: position, disabled: !last() });
  ui.slider.setAttribute('aria-valuetext', text);
  ui.back.disabled = position === 0;
  ui.forth.disabled = position === last();
  ui.play.disabled = !fused;
  [...ui.list.children].forEach((row, index) => row.firstChild.setAttribute('aria-current', index + 1 === position));
}

function pick(to) {
  following = false;
  stop();
  go(to);
}

function stop() {
  clearInterval(playing);
  playing = 0;
  ui.play.textContent = 'Play';
}

function play() {
  if (playing) return stop();
  go(position === last() ? 0 : position);
  ui.play.textContent = 'Pause';
  playing = setInterval(() => {
    go(position + 1);
    if (position === last()) stop();
  }, PAUSE + 200);
}

function byKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  pick(position + by);
}

// ---------------------------------------------------------------------------------------------- images

async function useCamera() {
  if (camera) {
    const taken = camera.take();
    await show(taken);
    return;
  }
  try {
    ui.video.hidden = false;
    ui.image.hidden = true;
    camera = await openCamera(ui.video);
    ui.camera.textContent = 'Take a photo';
    say('The camera is on.');
  } catch (error) {
    closeCamera();
    say(error.message);
  }
}

function closeCamera() {
  camera?.close();
  camera = undefined;
  ui.video.hidden = true;
  ui.image.hidden = false;
  ui.camera.textContent = 'Use the camera';
}

function fillGallery() {
  manifest.gallery.forEach(({ file, classes }, index) => {
    const words = `Image ${index + 1}: ${classes.join(', ')}`;
    const thumbnail = element('img', { src: address(file), alt: words, width: 72, height: 72 });
    const button = element('button', { type: 'button', title: words }, thumbnail);
    button.addEventListener('click', () => show(fromAddress(address(file))));
    ui.gallery.append(button);
  });
}

// ---------------------------------------------------------------------------------------------- start

async function fillPlaces() {
  const found = await kinds();
  for (const kind of found) ui.place.append(element('option', { value: kind }, PLACES[kind]));
  ui.places.hidden = found.length < 2;
}

function fillMaps() {
  for (const [value, name] of Object.entries(MAP_NAMES)) ui.map.append(element('option', { value }, name));
}

export async function start() {
  manifest = await readManifest();
  const missing = manifest?.missing ?? ['its files were not made when the book was built (make book makes them)'];
  if (missing.length || !manifest.networks.length) {
    ui.missing.textContent = `The demo cannot run here: ${missing.join('; ') || 'no network is published'}.`;
    return;
  }
  for (const { name, title } of manifest.networks) ui.network.append(element('option', { value: name }, title));
  fillGallery();
  fillMaps();
  await fillPlaces();
  ui.load.addEventListener('click', load);
  ui.network.addEventListener('change', offer);
  ui.place.addEventListener('change', offer);
  ui.map.addEventListener('change', () => go(position));
  ui.slider.addEventListener('input', () => pick(Number(ui.slider.value)));
  ui.back.addEventListener('click', () => pick(position - 1));
  ui.forth.addEventListener('click', () => pick(position + 1));
  ui.play.addEventListener('click', () => { following = false; play(); });
  ui.file.addEventListener('change', () => ui.file.files[0] && show(fromBlob(ui.file.files[0])));
  ui.camera.addEventListener('click', useCamera);
  ui.app.addEventListener('keydown', byKey);
  acceptDrops(ui.app, (file) => show(fromBlob(file)));
  ui.fallback.hidden = true;
  ui.app.hidden = false;
  offer();
  await show(fromAddress(address(manifest.gallery[0].file)));
}

await start();
