// Steps recorded when the book was built (book/live_gallery.py), which the page shows before a network runs.

import { json } from './fetching.mjs';

/** Decode one map of 8-bit integers in base64: {data, height, width}. */
function unpacked({ data, height, width, scale }) {
  const numbers = Int8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  return { data: Float32Array.from(numbers, (number) => number * scale), height, width };
}

/** The steps of one image as Network.steps yields them, without the times and the maps of the state. */
export async function recorded(file) {
  const steps = await json(file);
  return steps.map(({ stop, scores, mask, attention }) =>
    mask
      ? { stop, scores, mask: unpacked(mask), maps: { attention: [unpacked(attention)] }, ended: false }
      : { stop, maps: {}, ended: true },
  );
}
