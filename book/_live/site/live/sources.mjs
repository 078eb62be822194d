// Where images come from: a file, drag and drop, the clipboard, the gallery. None of them is uploaded.

const LONGEST = 2048; // pixels; a network reads a few hundred
const LARGEST = 100e6; // bytes

/** A file as a canvas, upright, on white where it is transparent. */
export async function fromBlob(blob) {
  const name = blob.name || 'This file';
  if (blob.size > LARGEST) throw new Error(`${name} is larger than ${LARGEST / 1e6} MB.`);
  const unreadable = new Error(`${name} is not an image that this browser can read. JPEG, PNG and WebP work.`);
  if (blob.type && !blob.type.startsWith('image/')) throw unreadable;
  const bitmap = await createImageBitmap(blob).catch(() => {
    throw unreadable;
  });
  const canvas = fromDrawable(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  return canvas;
}

export async function fromAddress(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`The image could not be loaded (HTTP ${answer.status}).`);
  return fromBlob(await answer.blob());
}

export function fromDrawable(source, width, height, longest = LONGEST) {
  const factor = Math.min(1, longest / Math.max(width, height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(width * factor));
  canvas.height = Math.max(1, Math.round(height * factor));
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.fillStyle = 'white';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/**
 * Handle drops anywhere on the page: otherwise the browser would leave the page to open the file.
 * @param marked element that shows where to drop.
 * @param use called with a file.
 * @param refuse called with a message if no file was dropped.
 */
export function acceptDrops(marked, use, refuse) {
  const mark = (over) => (event) => {
    event.preventDefault();
    marked.classList.toggle('live-over', over);
  };
  document.addEventListener('dragover', mark(true));
  document.addEventListener('dragleave', mark(false));
  document.addEventListener('drop', (event) => {
    mark(false)(event);
    const [file] = event.dataTransfer.files;
    if (file) use(file);
    else refuse('That is not a file: drop an image file.');
  });
  document.addEventListener('paste', (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) use(file);
  });
}
