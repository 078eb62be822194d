// Chapter 2: a ConvLSTM with one channel and weights set by hand, step by step.

import { grid, percent, picture, signed, text } from './kit.mjs';

const ROWS = 12;
const COLUMNS = 26;
export const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const map = (f) => Array.from({ length: ROWS }, (_, row) => Array.from({ length: COLUMNS }, (_, column) => f(row, column)));

/** Kernels list the few non-zero entries of 3×3 kernels: { gate, channel, row, column, weight }. Gates: i, f, g, o. */
export const CELLS = {
  writer: {
    biases: [-4, 2, 0, 5],
    x: [[0, 0, 8], [1, 1, -8], [2, 0, 3], [3, 2, -10]].map(([gate, channel, weight]) =>
      ({ gate, channel, row: 1, column: 1, weight })),
    h: [],
  },
  tracker: {
    biases: [6, -6, -1, 6],
    x: [{ gate: 2, channel: 0, row: 1, column: 1, weight: 6 }],
    h: [{ gate: 2, channel: 0, row: 1, column: 0, weight: 4 }],
  },
};

/** Input channels of a step (from 0): ball, wiper and curtain; or one ball, which a wall hides for a while. */
export function input(kind, step) {
  if (kind === 'tracker') {
    return [map((row, column) => Number((row - 6) ** 2 + (column - 3 - step) ** 2 <= 7 && (column < 9 || column > 16)))];
  }
  return [
    map((row, column) => Number((row - 5 - 0.3 * step) ** 2 + (column - 4 - 1.5 * step) ** 2 <= 6)),
    map((_, column) => Number(Math.floor(column / 2) === step - 4)),
    map((row) => Number(row > 8)),
  ];
}

/** One step of the cell: the gates and the new h and c. A null state is all zeros. */
export function next({ biases, x, h }, channels, state) {
  const before = state ?? { h: map(() => 0), c: map(() => 0) };
  const gates = biases.map((bias) => map(() => bias));
  for (const [kernel, source] of [[x, channels], [h, [before.h]]]) {
    for (const { gate, channel, row: r, column: c, weight } of kernel) {
      gates[gate] = gates[gate].map((line, row) => line.map((value, column) =>
        value + weight * (source[channel][row + r - 1]?.[column + c - 1] ?? 0))); // zeros beyond the border
    }
  }
  const c = map((row, column) => sigmoid(gates[1][row][column]) * before.c[row][column]
    + sigmoid(gates[0][row][column]) * Math.tanh(gates[2][row][column]));
  return { gates, c, h: map((row, column) => sigmoid(gates[3][row][column]) * Math.tanh(c[row][column])) };
}

/** The state after `steps` steps, with `forget` as the bias of the forget gate. */
export function run(kind, steps, forget) {
  const cell = { ...CELLS[kind], biases: CELLS[kind].biases.with?.(1, forget) ?? CELLS[kind].biases.map((b, k) => (k === 1 ? forget : b)) };
  let state = null;
  for (let step = 0; step < steps; step += 1) state = next(cell, input(kind, step), state);
  return state;
}

export const title = 'Gates at work: what is written, kept and shown';
export const controls = [
  { name: 'kind', label: 'Cell', value: 'writer',
    choice: [['writer', 'ball writes, wiper erases'], ['tracker', 'tracks a ball behind a wall']] },
  { name: 'step', label: 'Step', min: 1, max: ({ kind }) => (kind === 'tracker' ? 18 : 12), value: 8 },
  { name: 'forget', label: 'Bias of the forget gate', min: -6, max: 6, step: 0.5, value: 2 },
];

export function draw({ kind, step, forget }) {
  const channels = input(kind, step - 1);
  const state = run(kind, step, forget);
  const seen = channels.length === 1 ? map((row, column) => channels[0][row][column] - (column >= 9 && column <= 16 ? 0.2 : 0))
    : map((row, column) => channels[0][row][column] - 0.4 * channels[1][row][column] - 0.2 * channels[2][row][column]);
  const panels = [['input', seen], ['forget gate', state.gates[1].map((row) => row.map(sigmoid))],
    ['cell state c', state.c], ['hidden state h', state.h]];
  const stage = picture(360, 202, 'Four maps of this step: the input, the forget gate, the cell state and the hidden state.',
    panels.map(([name, values], index) => {
      const [x, y] = [2 + 180 * (index % 2), 100 * Math.floor(index / 2)];
      return [text(x, y + 12, name), grid(x, y + 17, 6.75, values, signed)];
    }));
  const share = sigmoid(forget);
  const above = (values) => values.flat().filter((value) => value > 0.5).length;
  const words = kind === 'tracker' && channels[0].flat().every((value) => !value) ? ' The ball is behind the wall: the input is empty.' : '';
  const says = `Unless the input closes it, the forget gate keeps ${percent(share)} of the cell state per step, `
    + `so ${percent(share ** 5)} is left after five. The cell state is above 0.5 at ${above(state.c)} positions, `
    + `the hidden state at ${above(state.h)}.${words}`;
  return { stage, says };
}
