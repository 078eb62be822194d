// The recurrence as a loop around two graphs: recseg/export/runtime.py, in JavaScript.

import { crop, pad } from './pixels.mjs';

const PARTS = ['encode', 'step'];
const TOLERANCE = 1e-2;
const PROBE = { data: Float32Array.from({ length: 3 * 64 * 64 }, (_, k) => ((k * k) % 251) / 250), height: 64, width: 64 };
const GATES = ['input_gate', 'forget_gate', 'output_gate']; // outputs that book/live.py adds to the step's graph

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
   * @param graphs {encode, step}: bytes.
   * @param about of the manifest: classes, image_size, max_steps.
   * @param padding {stride, colour}.
   */
  static async open(runtime, graphs, about, padding) {
    const network = new Network();
    Object.assign(network, { runtime, about, padding, sessions: {} });
    for (const part of PARTS) network.sessions[part] = await runtime.create(graphs[part]);
    return network;
  }

  /** The network's outputs for a small test image: stop, class logits and mask logits of each step. */
  async probe() {
    if (this.probed) return this.probed;
    this.probed = [];
    for await (const { encoded, stop, scores = [], mask } of this.steps(PROBE)) {
      if (encoded === undefined) this.probed.push(stop, ...scores, ...(mask?.data ?? []));
    }
    return this.probed;
  }

  /** Whether another network has the same outputs: some graphics cards compute wrong results. */
  async agrees(other) {
    const [ours, theirs] = [await this.probe(), await other.probe()];
    const near = (number, k) => Math.abs(number - theirs[k]) <= TOLERANCE * (1 + Math.abs(theirs[k]));
    return ours.length === theirs.length && ours.every(near);
  }

  async close() {
    for (const session of Object.values(this.sessions)) await session.release();
  }

  filled(value, shape) {
    const size = shape.reduce((product, side) => product * side, 1);
    return new this.runtime.Tensor('float32', new Float32Array(size).fill(value), shape);
  }

  /**
   * Step by step until the stop: first {encoded: ms}, then for each time step {stop, maps, ms, ended} and, unless the
   * sequence ends there, mask (logits) and scores (logits of classes; column k is label k + 1). The maps are the hidden
   * state h, the cell state c, the gates and, unless the sequence ends there, the attention.
   *
   * @param pixels {data, height, width}: (3, H, W) in [0, 1].
   */
  async *steps(pixels) {
    const padded = pad(pixels, this.padding.stride, this.padding.colour);
    const images = new this.runtime.Tensor('float32', padded.data, [1, 3, padded.height, padded.width]);
    const cropped = (data, height, width) => crop({ data, height, width }, pixels, padded);
    let start = performance.now();
    const features = await this.sessions.encode.run({ images });
    yield { encoded: performance.now() - start };

    const [, channels, rows, columns] = features.gates.dims;
    const [height, width] = features.embedding.dims.slice(2);
    let h = this.filled(0, [1, channels / 4, rows, columns]);
    let c = h;
    let uncovered = this.filled(1, [1, height, width]);
    let named = this.filled(0, [1, this.about.classes.length - 1]);
    for (let step = 0; step < this.about.max_steps; step++) {
      start = performance.now();
      const found = await this.sessions.step.run({ ...features, h, c, uncovered, named });
      const ms = performance.now() - start;
      ({ h_next: h, c_next: c, uncovered_next: uncovered, named_next: named } = found);
      const stop = found.stop.data[0];
      const maps = { h: channelsOf(h, cropped), c: channelsOf(c, cropped) };
      for (const gate of GATES) if (found[gate]) maps[gate] = channelsOf(found[gate], cropped);
      if (stop > 0) {
        yield { stop, maps, ms, ended: true };
        return;
      }
      maps.attention = [cropped(found.attention.data, height, width)];
      yield { stop, maps, ms, ended: false, mask: cropped(found.mask.data, height, width), scores: found.classes.data };
    }
  }
}

/** (1, C, h, w) → C maps. */
function channelsOf({ data, dims: [, channels, rows, columns] }, cropped) {
  const size = rows * columns;
  return Array.from({ length: channels }, (_, k) => cropped(data.subarray(k * size, (k + 1) * size), rows, columns));
}
