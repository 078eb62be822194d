// The camera, frame by frame.

import { fromDrawable } from './sources.mjs';

const LONGEST = 640; // pixels, long side of a frame
const FRAMES = 8; // over which the rate is averaged

/** Open the camera: `take()` returns the current frame as a canvas, `close()` switches it off. */
export async function openCamera(ended) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error('The browser gives this page no access to a camera: that needs https or localhost.');
  }
  const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
  const asked = { video: { facingMode: 'environment', width: { ideal: LONGEST } }, audio: false };
  const stream = await navigator.mediaDevices.getUserMedia(asked).catch((error) => {
    throw new Error(`No camera available (${error.message || error.name}).`);
  });
  const tracks = stream.getTracks();
  for (const track of tracks) track.addEventListener('ended', ended); // unplugged, or permission withdrawn
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

/** A function to call at each frame; it returns the frames per second over the last few. */
export function frameRate() {
  const times = [];
  return () => {
    times.push(performance.now());
    if (times.length > FRAMES) times.shift();
    return times.length < 2 ? 0 : (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
  };
}
