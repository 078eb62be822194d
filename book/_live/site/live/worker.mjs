// The worker in which the networks run, so that the page stays responsive.

import { Network } from './network.mjs';
import { planes, resize, resizedShape } from './pixels.mjs';
import { kinds, loadRuntime, PLACES } from './runtime.mjs';

const networks = new Map();

const answers = {
  kinds,

  async open({ about, kind, runtime: files, wasmBinary, graphs, padding }) {
    const runtime = await loadRuntime(files, kind, wasmBinary);
    const network = await Network.open(runtime, graphs, about, padding);
    if (kind !== 'wasm') {
      const judge = await Network.open(runtime.onProcessor, graphs, about, padding);
      const agree = await network.agrees(judge);
      await judge.close();
      if (!agree) throw new Error(`the ${PLACES[kind]} computes other results than the ${PLACES.wasm}`);
    }
    networks.set(`${about.name} ${kind}`, network);
  },

  async segment({ key, rgba, longest }, emit) {
    const network = networks.get(key);
    const shape = resizedShape(rgba.height, rgba.width, network.about.image_size, longest);
    for await (const step of network.steps(planes(resize(rgba, shape)))) emit(step);
  },
};

let turn = Promise.resolve(); // one run at a time
addEventListener('message', ({ data: { id, what, given } }) => {
  turn = turn.then(async () => {
    try {
      postMessage({ id, result: await answers[what](given, (part) => postMessage({ id, part })) });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  });
});
