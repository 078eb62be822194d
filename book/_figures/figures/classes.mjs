// PASCAL VOC's labels and their colours, as in recseg.classes.

export const VOC_CLASSES = [
  'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable',
  'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
];
export const VOID = 255;

/** RGB of a label: its bits, spread over the three channels, lowest first to the highest bits of the colour. */
export function colour(label) {
  const rgb = [0, 0, 0];
  for (let bit = 0; bit < 8; bit += 1) {
    for (let channel = 0; channel < 3; channel += 1) rgb[channel] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit);
  }
  return rgb;
}

export const css = (rgb) => `rgb(${rgb.join(' ')})`;
/** Attributes of a cell of a label map. */
export const painted = (label) => ({ fill: css(colour(label)) });
