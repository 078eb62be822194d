// Images and maps as plain arrays: {data, height, width}, rows from the top. Same results as recseg and Pillow.

/** Height and width of an image resized to a short side of `size` and a long side of at most `longest` times that. */
export function resizedShape(height, width, size, longest) {
  const factor = size / Math.min(height, width);
  return [height, width].map((side) => Math.min(Math.max(size, roundHalfToEven(side * factor)), longest * size));
}

/** Python's round(). */
function roundHalfToEven(value) {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}

/** For each of `length` new pixels: the first old one that it reads, and the weights from there on (a triangle filter). */
function triangles(old, length) {
  const scale = old / length;
  const support = Math.max(scale, 1); // antialiasing: shrinking averages over all pixels
  return Array.from({ length }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), old);
    const weights = [];
    for (let at = first; at < end; at++) weights.push(Math.max(0, 1 - Math.abs((at + 0.5 - centre) / support)));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}

/** Pillow's bilinear resize of RGBA bytes to RGB bytes: rows first, then columns, 8 bits after each. */
export function resize({ data, height, width }, [rows, columns]) {
  const across = new Uint8ClampedArray(height * columns * 3); // it rounds and clamps
  triangles(width, columns).forEach(({ first, weights }, x) => {
    for (let y = 0; y < height; y++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * data[(y * width + first + k) * 4 + channel];
        across[(y * columns + x) * 3 + channel] = sum;
      }
    }
  });
  const down = new Uint8ClampedArray(rows * columns * 3);
  const line = columns * 3;
  triangles(height, rows).forEach(({ first, weights }, y) => {
    for (let at = 0; at < line; at++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * across[(first + k) * line + at];
      down[y * line + at] = sum;
    }
  });
  return { data: down, height: rows, width: columns };
}

/** RGB bytes → the network's input: (3, H, W) in [0, 1]. */
export function planes({ data, height, width }) {
  const size = height * width;
  const result = new Float32Array(3 * size);
  for (let at = 0; at < size; at++) {
    for (let channel = 0; channel < 3; channel++) result[channel * size + at] = data[at * 3 + channel] / 255;
  }
  return { data: result, height, width };
}

/** Pad (3, H, W) at the right and below to multiples of `stride`, with the mean colour of the training images. */
export function pad({ data, height, width }, stride, colour) {
  const rows = Math.ceil(height / stride) * stride;
  const columns = Math.ceil(width / stride) * stride;
  const result = new Float32Array(3 * rows * columns);
  for (let channel = 0; channel < 3; channel++) {
    result.fill(colour[channel] / 255, channel * rows * columns, (channel + 1) * rows * columns);
    for (let y = 0; y < height; y++) {
      const from = (channel * height + y) * width;
      result.set(data.subarray(from, from + width), (channel * rows + y) * columns);
    }
  }
  return { data: result, height: rows, width: columns };
}

/** Crop a map of the padded image to the part without the padding. */
export function crop({ data, height, width }, pixels, padded) {
  const rows = Math.ceil((pixels.height * height) / padded.height); // rounded up, as the network halves odd sides
  const columns = Math.ceil((pixels.width * width) / padded.width);
  const result = new Float32Array(rows * columns);
  for (let y = 0; y < rows; y++) result.set(data.subarray(y * width, y * width + columns), y * columns);
  return { data: result, height: rows, width: columns };
}

/** For each of `length` new pixels, the two old ones around its centre and the weight of the second. */
function neighbours(old, length) {
  return Array.from({ length }, (_, index) => {
    const centre = Math.min(Math.max(((index + 0.5) * old) / length - 0.5, 0), old - 1);
    const below = Math.floor(centre);
    return [below, Math.min(below + 1, old - 1), centre - below];
  });
}

/** Resize logits, bilinear between pixel centres: done before any threshold or argmax, so that edges are smooth. */
export function stretch({ data, height, width }, rows, columns) {
  const result = new Float32Array(rows * columns);
  const across = neighbours(width, columns);
  neighbours(height, rows).forEach(([above, below, share], y) => {
    for (let x = 0; x < columns; x++) {
      const [left, right, part] = across[x];
      const upper = data[above * width + left] * (1 - part) + data[above * width + right] * part;
      const lower = data[below * width + left] * (1 - part) + data[below * width + right] * part;
      result[y * columns + x] = upper * (1 - share) + lower * share;
    }
  });
  return { data: result, height: rows, width: columns };
}
