// The page's side of the worker: files are fetched here, under the page's policy; the networks run in the worker.

import { bytes } from './fetching.mjs';

export class Engine {
  /** @param manifest written by the build: runtimes, padding, longest. */
  constructor(manifest) {
    this.manifest = manifest;
    this.waiting = new Map(); // requests by number
    this.opened = new Map(); // promises, by network and place
    this.ready = new Set(); // of them, those that are open
    this.runtimes = new Set(); // places whose runtime the worker has
    this.worker = new Worker(new URL('./worker.mjs', import.meta.url), { type: 'module' });
    this.worker.addEventListener('message', ({ data: { id, part, result, error } }) => {
      const { resolve, reject, hear } = this.waiting.get(id);
      if (part) return hear(part);
      this.waiting.delete(id);
      return error === undefined ? resolve(result) : reject(new Error(error));
    });
    this.worker.addEventListener('error', (event) => {
      event.preventDefault();
      for (const { reject } of this.waiting.values()) reject(new Error(event.message || 'the worker did not start'));
      this.waiting.clear();
    });
  }

  ask(what, given, { hear = () => {}, transfer = [] } = {}) {
    const id = (this.count = (this.count ?? 0) + 1);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, hear });
      this.worker.postMessage({ id, what, given }, transfer);
    });
  }

  /** Where this browser can compute, best first. */
  kinds() {
    return this.ask('kinds');
  }

  /** Whether a network is open already. */
  has(about, kind) {
    return this.ready.has(`${about.name} ${kind}`);
  }

  /** Bytes still to be downloaded. */
  size(about, kind) {
    if (this.has(about, kind)) return 0;
    const runtime = this.runtimes.has(kind) ? 0 : this.manifest.runtimes[kind].bytes;
    return Object.values(about.graphs).reduce((sum, { bytes: more }) => sum + more, runtime);
  }

  /** Fetch and open a network once; `progress` is called with the fraction downloaded. */
  open(about, kind, progress = () => {}) {
    const key = `${about.name} ${kind}`;
    if (!this.opened.has(key)) {
      const opening = this.#open(about, kind, progress);
      this.opened.set(key, opening);
      opening.catch(() => this.opened.delete(key)); // so that one may try again, for instance after a lost connection
    }
    return this.opened.get(key);
  }

  async #open(about, kind, progress) {
    const total = this.size(about, kind);
    let arrived = 0;
    const fetched = (file) => bytes(file, (more) => progress((arrived += more) / total));
    const runtime = this.manifest.runtimes[kind];
    const wanted = [about.graphs.encode.file, about.graphs.step.file];
    if (!this.runtimes.has(kind)) wanted.push(runtime.binary);
    const [encode, step, wasmBinary] = await Promise.all(wanted.map(fetched));
    const padding = { stride: about.stride, colour: this.manifest.padding };
    const transfer = [encode, step, wasmBinary].filter(Boolean).map(({ buffer }) => buffer);
    await this.ask('open', { about, kind, runtime, wasmBinary, graphs: { encode, step }, padding }, { transfer });
    this.runtimes.add(kind);
    this.ready.add(`${about.name} ${kind}`);
    return { about, kind };
  }

  /**
   * Segment an image with a network that is open; `hear` is called with each step as it arrives (see Network.steps).
   * @param rgba ImageData; its pixels move to the worker.
   */
  segment({ about, kind }, rgba, hear) {
    const given = { key: `${about.name} ${kind}`, rgba, longest: this.manifest.longest };
    return this.ask('segment', given, { hear, transfer: [rgba.data.buffer] });
  }
}
