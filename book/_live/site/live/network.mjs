// The recurrence as a loop around three graphs: recseg/export/runtime.py, in JavaScript.

import { crop, pad } from './pixels.mjs';

const PARTS = ['look', 'step', 'read'];
const TOLERANCE = 1e-2;
const PROBE = { data: Float32Array.from({ length: 3 * 64 * 64 }, (_, k) => ((k * k) % 251) / 250), height: 64, width: 64 };
export const MAPS = ['h', 'c', 'input_gate', 'forget_gate', 'output_gate'];

export const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

export class Network {
  /**
   * @param runtime of runtime.mjs.
   * @param graphs {look, step, read}: bytes.
   * @param about of the manifest: classes, image_size, max_steps.
   * @param padding {stride, colour}.
   */
  static async open(runtime, graphs, about, padding) {
    const network = new Network();
    Object.assign(network, { runtime, about, padding, sessions: {} });
    for (const part of PARTS) network.sessions[part] = await runtime.create(graphs[part]);
    // A first run takes longer, since a browser and a graphics card compile as they go: not at the reader's first picture.
    network.probed = await network.says(PROBE);
    return network;
  }

  /** All numbers that decide: stop and scores of each turn, and its mask's. */
  async says(pixels) {
    const numbers = [];
    for await (const { look, stop, scores = [], mask } of this.steps(pixels)) {
      if (look === undefined) numbers.push(stop, ...scores, ...(mask?.data ?? []));
    }
    return numbers;
  }

  /** Whether another network said the same of that first picture: not every card's arithmetic is to be trusted. */
  agrees({ probed: theirs }) {
    const near = (number, k) => Math.abs(number - theirs[k]) <= TOLERANCE * (1 + Math.abs(theirs[k]));
    return this.probed.length === theirs.length && this.probed.every(near);
  }

  async close() {
    for (const session of Object.values(this.sessions)) await session.release();
  }

  /** Run one graph on what it asks for: networks differ in what their steps are told. */
  async run(part, given) {
    const session = this.sessions[part];
    return session.run(Object.fromEntries(session.inputNames.map((name) => [name, given[name]])));
  }

  zeros(shape) {
    return new this.runtime.Tensor('float32', new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
  }

  /**
   * Turn by turn until the stop: first {look: ms}, then for each turn {stop} and, unless it ends there, mask (logits),
   * scores (logits of classes; column k is label k + 1), maps (state and gates) and ms.
   *
   * @param pixels {data, height, width}: (3, H, W) in [0, 1].
   */
  async *steps(pixels) {
    const padded = pad(pixels, this.padding.stride, this.padding.colour);
    const images = new this.runtime.Tensor('float32', padded.data, [1, 3, padded.height, padded.width]);
    let start = performance.now();
    const seen = await this.run('look', { images });
    yield { look: performance.now() - start };

    const { embedding, gates } = seen;
    const [, channels, rows, columns] = gates.dims;
    const [height, width] = embedding.dims.slice(2);
    const cropped = (data, h, w) => crop({ data, height: h, width: w }, pixels, padded);
    let h = this.zeros([1, channels / 4, rows, columns]);
    let c = h;
    let left = this.zeros([1, height, width]); // logarithm of the share that no step has claimed
    let taken = this.zeros([1, this.about.classes.length - 1]);
    for (let turn = 0; turn < this.about.max_steps; turn++) {
      start = performance.now();
      const next = await this.run('step', { ...seen, h, c, left });
      h = next.h_next;
      c = next.c_next;
      const stop = next.stop.data[0];
      const found = { ...next, h, c };
      const maps = {};
      for (const name of MAPS) if (found[name]) maps[name] = channelsOf(found[name], cropped);
      if (stop > 0) {
        yield { stop, maps, ended: true, ms: performance.now() - start };
        return;
      }
      const read = await this.run('read', { ...seen, h, summary: next.summary, left, taken });
      const ms = performance.now() - start;
      left = read.left_next ?? left;
      taken = read.taken_next;
      yield { stop, maps, mask: cropped(read.mask.data, height, width), scores: read.scores.data, ended: false, ms };
    }
  }
}

/** (1, C, h, w) → C maps. */
function channelsOf({ data, dims: [, channels, rows, columns] }, cropped) {
  const size = rows * columns;
  return Array.from({ length: channels }, (_, k) => cropped(data.subarray(k * size, (k + 1) * size), rows, columns));
}
