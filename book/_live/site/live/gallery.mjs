// The images to try, and the ground truth of those that have one.

import { paintMap } from './drawing.mjs';
import { address } from './fetching.mjs';
import { fromAddress } from './sources.mjs';
import { element } from './view.mjs';

const VOID = 255; // label of pixels that are neither trained on nor scored

/** One button for each image of a network's gallery. */
export function fillGallery(box, about, choose) {
  const buttons = about.gallery.map((item) => {
    const thumbnail = element('img', { src: address(item.file), alt: item.title });
    const button = element('button', { type: 'button', title: item.title, 'aria-pressed': 'false' }, thumbnail);
    button.dataset.file = item.file;
    button.addEventListener('click', () => choose(item));
    return button;
  });
  box.replaceChildren(...buttons);
}

/** Mark the image of the gallery that is shown, if any. */
export function mark(box, item) {
  for (const button of box.children) button.setAttribute('aria-pressed', String(button.dataset.file === item?.file));
}

/** The ground truth of an image: its classes in words, and its label map where there is one. */
export async function showTruth(ui, item, palette) {
  ui.truth.hidden = !item;
  ui.truthmap.hidden = true;
  if (!item) return;
  ui.truth.dataset.file = item.file;
  ui.truthwords.textContent = `Ground truth: ${item.classes.join(', ')}.`;
  if (!item.truth) return;
  const canvas = await fromAddress(address(item.truth));
  if (ui.truth.dataset.file !== item.file) return; // another one was chosen in the meantime
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const labels = Uint8Array.from({ length: data.length / 4 }, (_, at) => data[at * 4]);
  paintMap(ui.truthmap, { labels, width: canvas.width, height: canvas.height }, palette);
  if (labels.includes(VOID)) ui.truthwords.textContent += ' Grey is void (not scored).';
  ui.truthmap.setAttribute('aria-label', ui.truthwords.textContent);
  ui.truthmap.hidden = false;
}
