// Chapter 8: a running sum in 32 and in 16 bits.

import { chart, legend } from './chart.mjs';
import { whole } from './kit.mjs';

/** Bits of the significand, and smallest and largest exponents, of each type. */
export const TYPES = {
  float32: { digits: 24, least: -126, most: 127 },
  bfloat16: { digits: 8, least: -126, most: 127 },
  float16: { digits: 11, least: -14, most: 15 },
};

/** Round to the nearest number of a type, ties to even; infinity on overflow. */
export function rounded(value, name) {
  const { digits, least, most } = TYPES[name];
  if (value === 0 || !Number.isFinite(value)) return value;
  const exponent = Math.max(least, Math.floor(Math.log2(Math.abs(value)) + 1e-12));
  const unit = 2 ** (exponent - digits + 1);
  const units = value / unit;
  const below = Math.floor(units);
  const up = units - below > 0.5 || (units - below === 0.5 && below % 2 !== 0);
  const result = (below + Number(up)) * unit;
  return Math.abs(result) >= 2 ** (most + 1) ? Math.sign(result) * Infinity : result;
}

/** Sums after 0, 1, … `count` additions of `step`, each rounded. */
export function runningSum(step, count, name) {
  const added = rounded(step, name);
  const sums = [0];
  for (let k = 0; k < count; k += 1) sums.push(rounded(sums[k] + added, name));
  return sums;
}

/** Number of additions after which the sum stands still; null if it never does. */
export function stallsAfter(sums) {
  const still = sums.findIndex((sum, k) => k && sum === sums[k - 1]);
  return still < 0 ? null : still - 1;
}

const COUNT = 4000;
const short = (value) => (Number.isFinite(value) ? value.toPrecision(3).replace(/e\+?(-?)(\d+)/, ' × 10^$1$2') : 'infinity');

export const title = 'A running sum in 16 bits';
export const controls = [
  { name: 'power', label: 'Number added each time', min: -4, max: 3, step: 0.5, value: -3,
    show: (power) => (10 ** power).toPrecision(2).replace(/e.*/, '') && String(Number((10 ** power).toPrecision(2))) },
  { name: 'count', label: 'Additions', min: 100, max: COUNT, step: 100, value: 3000, show: whole },
];

export function draw({ power, count }) {
  const step = Number((10 ** power).toPrecision(2));
  const sums = Object.fromEntries(Object.keys(TYPES).map((name) => [name, runningSum(step, count, name)]));
  const places = Array.from({ length: 101 }, (_, k) => Math.round((k / 100) * count));
  const kinds = { float32: 'one', bfloat16: 'two', float16: 'three' };
  const curves = Object.entries(sums).map(([name, values]) =>
    ({ kind: kinds[name], name, points: places.filter((k) => Number.isFinite(values[k])).map((k) => [k, values[k]]) }));
  const most = step * count;
  const high = Math.max(...curves.flatMap(({ points }) => points.map(([, sum]) => sum)));
  const stage = chart({
    alt: 'The sum over the number of additions, in three types: a straight line, and lines that bend and go flat.',
    x: { min: 0, max: count, label: 'additions', ticks: [0, 0.5, 1].map((f) => [f * count, whole(f * count)]) },
    y: { min: 0, max: high, label: 'sum', ticks: [0, 0.5, 1].map((f) => [f * most, f ? short(f * most) : 0]) },
    curves,
  });
  const sixteenBits = ['bfloat16', 'float16'].map((name) => {
    const [last, stall] = [sums[name][count], stallsAfter(sums[name])];
    if (last === Infinity) return `${name} overflows after ${whole(sums[name].indexOf(Infinity))} additions`;
    return stall === null ? `${name} gives ${short(last)}` : `${name} stands still at ${short(last)} after ${whole(stall)} additions`;
  });
  const says = `${whole(count)} × ${step} = ${short(most)}. float32 gives ${short(sums.float32[count])}, ${sixteenBits.join(', ')}.`;
  return { stage: [legend(curves), stage], says };
}
