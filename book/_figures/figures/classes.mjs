// PASCAL VOC's labels and their colours, as in recseg.classes.

export const VOC_CLASSES = [
  'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable',
  'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
];
export const VOID = 255;

/** RGB of a label: its bits, lowest first, go to R, G and B in turn and fill each channel from its highest bit. */
export function colour(label) {
  const rgb = [0, 0, 0];
  for (let bit = 0; bit < 8; bit += 1) {
    for (let channel = 0; channel < 3; channel += 1) rgb[channel] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit);
  }
  return rgb;
}

export const css = (rgb) => `rgb(${rgb.join(' ')})`;
/** SVG attributes of a cell of a label map. */
export const painted = (label) => ({ fill: css(colour(label)) });
