// The live page: what its controls do. The page's markup is in book/live.md.

import { openCamera, frameRate } from './camera.mjs';
import { Engine } from './engine.mjs';
import { address, manifest as readManifest } from './fetching.mjs';
import { fillGallery, mark, showTruth } from './gallery.mjs';
import { MAP_NAMES } from './maps.mjs';
import { PAUSE, Player } from './player.mjs';
import { recorded } from './recorded.mjs';
import { PLACES } from './runtime.mjs';
import { acceptDrops, fromAddress, fromBlob } from './sources.mjs';
import { element, named, plural, time } from './view.mjs';

const HINTS = ['pointermove', 'pointerdown', 'focusin', 'touchstart', 'dragenter']; // signs that a reader wants to use the demo
const ui = Object.fromEntries(Array.from(document.querySelectorAll('[data-live]'), (found) => [found.dataset.live, found]));
const calm = matchMedia('(prefers-reduced-motion: reduce)');
const rest = (ms) => new Promise((done) => setTimeout(done, ms));

let manifest;
let engine; // undefined where the book was built without a runtime
let player;
let about; // the chosen network
let picture; // {canvas, item}: item is its entry in the gallery, if it has one
let camera;
let placed; // a promise, resolved when it is known where this browser can compute
let loading; // fraction of the network downloaded so far
let hinted = false;
let chosen = 0; // counts the requested images, so that one that arrives late is dropped
let latest = 0; // counts the requested answers, likewise
let turn = Promise.resolve(); // one run at a time

const say = (text) => (ui.status.textContent = text);

function offer() {
  if (!ui.place.value) return;
  const bytes = engine.size(about, ui.place.value);
  const size = `${(bytes / 1e6).toFixed(1)} MB`;
  if (loading !== undefined) ui.run.textContent = `Loading … ${Math.round(100 * loading)} %`;
  else ui.run.textContent = bytes ? `Run it in your browser (${size})` : 'Run again';
}

// ---------------------------------------------------------------------------------------------- answers

/** Open the chosen network; fall back to the processor if the graphics card fails. */
async function open() {
  await placed;
  const [wanted, kind] = [about, ui.place.value];
  const progress = (share) => {
    if (wanted === about) loading = share;
    offer();
  };
  try {
    return await engine.open(wanted, kind, progress);
  } catch (error) {
    if (kind === 'wasm') throw new Error(`The network could not be loaded: ${error.message}.`);
    ui.place.value = 'wasm';
    return await open();
  } finally {
    loading = undefined;
    offer();
  }
}

/** Segment a canvas; `hear` is called with each step as it arrives. */
async function segment(opened, canvas, hear = () => {}) {
  const rgba = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const answer = { steps: [], encoded: 0 };
  await engine.segment(opened, rgba, (part) => {
    if (part.encoded !== undefined) answer.encoded = part.encoded;
    else hear(answer.steps[answer.steps.push(part) - 1]);
  });
  return answer;
}

function describe(steps, classes, took = '') {
  const names = named(steps, classes);
  const found = names.length ? names.join(', ') : 'no known class';
  say(`${plural(names.length, 'time step')}: ${found}.${took}`);
}

/** Run the chosen network on the current image and show its steps one by one, or all at once. */
async function run({ animate = true } = {}) {
  endCamera();
  const mine = ++latest;
  const old = () => mine !== latest;
  try {
    const opened = await open();
    turn = turn.catch(() => {}).then(() => (old() ? undefined : answer(opened, animate, old)));
    await turn;
  } catch (error) {
    if (!old()) say(error.message);
  }
}

async function answer(opened, animate, old) {
  const name = `${opened.about.title} · computed here (${PLACES[opened.kind]})`;
  let shown = Promise.resolve();
  if (animate) {
    player.begin(opened.about);
    ui.source.textContent = name;
    say('Encoding …');
  }
  const { steps, encoded } = await segment(opened, picture.canvas, (step) => {
    if (!animate) return;
    shown = shown.then(async () => {
      if (old()) return;
      player.add(step);
      await rest(calm.matches || !player.following ? 0 : PAUSE);
    });
  });
  await shown;
  if (old()) return;
  if (animate) player.finish();
  else player.replace(opened.about, steps);
  ui.source.textContent = name;
  const spent = steps.reduce((sum, { ms }) => sum + ms, 0);
  describe(steps, opened.about.classes, ` Encoded once in ${time(encoded)}, steps in ${time(spent)}.`);
}

/** Show the answer that was recorded when the book was built. */
async function showRecorded(coming) {
  const mine = ++latest;
  const network = about;
  const steps = await coming;
  if (mine !== latest) return;
  player.replace(network, steps);
  ui.source.textContent = `${network.title} · recorded when the book was built`;
  describe(steps, network.classes, engine ? ' Use the demo to run the network here.' : ` ${ui.missing.textContent}`);
}

/** At the first hint of use, fetch the network and replace the recorded answer with its own. */
function prepare() {
  if (hinted || !engine || navigator.connection?.saveData) return;
  hinted = true;
  run({ animate: false });
}

// ---------------------------------------------------------------------------------------------- images

/** Show an image and its answer; `item` is its entry in the gallery, if it has one. */
async function choose(found, item) {
  const mine = ++chosen;
  const before = item && !engine?.has(about, ui.place.value) && recorded(item.recorded);
  try {
    const canvas = await found;
    if (mine !== chosen) return;
    endCamera();
    latest += 1;
    picture = { canvas, item };
    mark(ui.gallery, item);
    showTruth(ui, item, manifest.palette);
    ui.source.textContent = about.title;
    player.show(canvas, 'Waiting for the answer.');
    if (before) await showRecorded(before);
    if (engine && (hinted || !item)) await run({ animate: !before });
  } catch (error) {
    if (mine === chosen) say(error.message);
  }
}

const chooseFrom = (item) => choose(fromAddress(address(item.file)), item);
const chooseFile = (file) => (engine ? choose(fromBlob(file)) : say(ui.missing.textContent));

async function changeNetwork() {
  const own = picture && !picture.item;
  about = manifest.networks.find(({ name }) => name === ui.network.value);
  fillGallery(ui.gallery, about, chooseFrom);
  offer();
  if (camera) return; // the next frame uses it
  if (!own) return await chooseFrom(about.gallery[0]);
  ui.source.textContent = about.title;
  player.show(picture.canvas, 'Waiting for the answer.'); // removes the other network's answer at once
  say('Loading …');
  await run();
}

// ---------------------------------------------------------------------------------------------- camera

async function useCamera() {
  if (camera) return endCamera();
  const mine = ++latest;
  try {
    say('Loading …');
    await open();
    const opened = await openCamera(endCamera);
    if (mine !== latest) return opened.close();
    camera = opened;
    ui.camera.textContent = 'Stop the camera';
    ui.camera.setAttribute('aria-pressed', 'true');
    mark(ui.gallery);
    showTruth(ui);
    say('The camera is on.');
    const rate = frameRate();
    while (camera === opened) {
      const network = await open();
      const canvas = opened.take();
      const { steps } = await segment(network, canvas);
      if (camera !== opened) return;
      picture = { canvas };
      player.film(canvas, network.about, steps);
      ui.source.textContent = `${network.about.title} · camera`;
      ui.rate.textContent = `${rate().toFixed(1)} frames per second`;
      await new Promise(requestAnimationFrame); // pauses while the page is hidden
    }
  } catch (error) {
    endCamera();
    if (mine === latest) say(error.message);
  }
}

function endCamera() {
  camera?.close();
  camera = undefined;
  ui.camera.textContent = 'Use the camera';
  ui.camera.setAttribute('aria-pressed', 'false');
  ui.rate.textContent = '';
}

// ---------------------------------------------------------------------------------------------- start

async function fillPlaces() {
  const found = await engine.kinds();
  const options = found.map((kind) => element('option', { value: kind }, PLACES[kind]));
  ui.place.replaceChildren(...options);
  ui.places.hidden = found.length < 2;
  offer();
}

export async function start() {
  manifest = await readManifest();
  const missing = manifest?.missing ?? ['its files are missing (make book creates them)'];
  if (missing.length) ui.missing.textContent = `The network cannot run here: ${missing.join('; ')}.`;
  if (!manifest?.networks?.length) return;
  for (const { name, title } of manifest.networks) ui.network.append(element('option', { value: name }, title));
  for (const [value, name] of Object.entries(MAP_NAMES)) ui.map.append(element('option', { value }, name));
  player = new Player(ui, manifest.palette);
  about = manifest.networks[0];
  if (!missing.length) engine = new Engine(manifest);
  for (const live of [ui.run, ui.camera, ui.pick]) live.hidden = !engine;
  fillGallery(ui.gallery, about, chooseFrom);
  ui.fallback.hidden = true;
  ui.app.hidden = false;
  if (engine) placed = fillPlaces();
  chooseFrom(about.gallery[0]);
  listen();
}

function listen() {
  ui.run.addEventListener('click', () => {
    hinted = true;
    run();
  });
  ui.network.addEventListener('change', changeNetwork);
  ui.place.addEventListener('change', () => run({ animate: false }));
  ui.file.addEventListener('change', () => ui.file.files[0] && chooseFile(ui.file.files[0]));
  ui.camera.addEventListener('click', useCamera);
  acceptDrops(ui.app, chooseFile, say);
  for (const hint of HINTS) ui.app.addEventListener(hint, prepare, { passive: true });
  document.addEventListener('scroll', prepare, { passive: true, once: true });
}

await start();
