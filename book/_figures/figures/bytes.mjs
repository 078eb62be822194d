// Chapter 14: bytes of the output over the size of the label set.

import { chart, legend, tens } from './chart.mjs';
import { whole } from './kit.mjs';

/** Bytes of a model's output for one image, in 32-bit numbers. `steps`: stop logits computed. */
export const denseBytes = ({ known, side }) => 4 * (known + 1) * side ** 2;
export const sequenceBytes = ({ known, there, side, steps = there + 1 }) => 4 * (there * side ** 2 + there * known + steps);

/** Bytes that one more class in the label set adds to each. */
export const oneMore = ({ there, side }) => ({ dense: 4 * side ** 2, sequence: 4 * there });

const MOST = 10000;
const knownOf = (power) => Math.round(10 ** power);
export const size = (bytes) => {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  const unit = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${(bytes / 1024 ** unit).toLocaleString('en-US', { maximumSignificantDigits: 3 })} ${units[unit]}`;
};

export const title = 'Size of the output';
export const controls = [
  { name: 'power', label: 'Classes in the label set', min: 0, max: 4, step: 0.05, value: 1.3, show: (power) => whole(knownOf(power)) },
  { name: 'there', label: 'Classes in the image', min: 0, max: 30, value: 2 },
  { name: 'side', label: 'Side of the image', min: 64, max: 2048, step: 64, value: 512, show: (value) => `${value} pixels` },
];

export function draw({ power, there: wanted, side }) {
  const known = knownOf(power);
  const there = Math.min(wanted, known); // an image cannot have more classes than the label set
  const places = Array.from({ length: 81 }, (_, k) => 10 ** (k / 20));
  const curves = [
    { kind: 'one', name: 'dense', points: places.map((k) => [k, denseBytes({ known: k, side })]) },
    { kind: 'two', name: `sequence, ${wanted} in image`,
      points: places.filter((k) => k >= wanted).map((k) => [k, Math.max(4, sequenceBytes({ known: k, there: wanted, side }))]) },
  ];
  const [dense, sequence] = [denseBytes({ known, side }), sequenceBytes({ known, there, side })];
  const [low, high] = [4e3, 2e11];
  const stage = chart({
    alt: 'Bytes over the size of the label set, both axes logarithmic: the dense line rises, that of the sequence is nearly flat.',
    x: { min: 1, max: MOST, log: true, label: 'classes in the label set', ticks: tens(1, MOST) },
    y: { min: low, max: high, log: true, label: '', ticks: [12, 17, 22, 27, 32, 37].map((bit) => [2 ** bit, size(2 ** bit)]) },
    curves,
    marks: [{ x: known, y: dense, kind: 'one' }, { x: known, y: Math.max(low, sequence), kind: 'two' }],
  });
  const more = oneMore({ there, side });
  const says = `Dense: ${size(dense)}, sequence: ${size(sequence)}. One more class in the label set adds ${size(more.dense)} to the `
    + `dense output and ${size(more.sequence)} to the sequence.`
    + (there === known ? ' All classes are in the image: the sequence saves only the background map.' : '');
  return { stage: [legend(curves), stage], says };
}
