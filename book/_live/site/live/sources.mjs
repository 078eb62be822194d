// Where images come from: a file, something dropped or pasted, the camera, the gallery. None of them is sent anywhere.

const LONGEST = 2048; // pixels; a network is given a few hundred

/** A file as a canvas, upright, over white where it is transparent. */
export async function fromBlob(blob) {
  const bitmap = await createImageBitmap(blob).catch(() => {
    throw new Error('This file is no image that the browser can read.');
  });
  const canvas = fromDrawable(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  return canvas;
}

export async function fromAddress(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`The image is not there (the server answers ${answer.status}).`);
  return fromBlob(await answer.blob());
}

function fromDrawable(source, width, height) {
  const factor = Math.min(1, LONGEST / Math.max(width, height));
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

/** Call `use` with each image that is dropped on, or pasted into, the page. */
export function acceptDrops(target, use) {
  const image = (list) => Array.from(list ?? []).find((file) => file.type.startsWith('image/'));
  const mark = (over) => (event) => {
    event.preventDefault(); // else the browser opens the file in place of the page
    target.classList.toggle('live-over', over);
  };
  target.addEventListener('dragover', mark(true));
  target.addEventListener('dragleave', mark(false));
  target.addEventListener('drop', (event) => {
    mark(false)(event);
    const file = image(event.dataTransfer.files);
    if (file) use(file);
  });
  document.addEventListener('paste', (event) => {
    const file = image(event.clipboardData?.files);
    if (file) use(file);
  });
}

/** The camera, shown in a video element; `take()` gives its image as a canvas, `close()` switches it off. */
export async function openCamera(video) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error('The browser gives no camera to this page: that takes https, or a page from this machine.');
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' }, audio: false });
  } catch (error) {
    throw new Error(`No camera (${error.message || error.name}).`);
  }
  const close = () => {
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  };
  video.srcObject = stream;
  await video.play();
  return { close, take: () => fromDrawable(video, video.videoWidth, video.videoHeight) };
}
