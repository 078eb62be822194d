// The camera, frame after frame.

import { fromDrawable } from './sources.mjs';

const LONGEST = 640; // pixels of a frame: what a network is given, and what is drawn many times a second
const FRAMES = 8; // over which the rate is averaged

/** Opens the camera: `take()` gives the present frame as a canvas, `close()` switches it off. */
export async function openCamera(ended) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error('The browser gives no camera to this page: that takes https, or a page from this machine.');
  }
  const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
  const asked = { video: { facingMode: 'environment', width: { ideal: LONGEST } }, audio: false };
  const stream = await navigator.mediaDevices.getUserMedia(asked).catch((error) => {
    throw new Error(`No camera (${error.message || error.name}).`);
  });
  const tracks = stream.getTracks();
  for (const track of tracks) track.addEventListener('ended', ended); // unplugged, or no longer allowed
  video.srcObject = stream;
  await video.play();
  return {
    take: () => fromDrawable(video, video.videoWidth, video.videoHeight, LONGEST),
    close: () => {
      for (const track of tracks) track.stop();
      video.srcObject = null;
    },
  };
}

/** Counts frames: call it with each one; frames a second over the last few. */
export function frameRate() {
  const times = [];
  return () => {
    times.push(performance.now());
    if (times.length > FRAMES) times.shift();
    return times.length < 2 ? 0 : (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
  };
}
