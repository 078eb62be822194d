// ONNX Runtime, in one of two builds: for the graphics card by WebGPU, or for the processor by WebAssembly.

import { address, bytes } from './fetching.mjs';

export const PLACES = { webgpu: 'graphics card', wasm: 'processor' };

/** What this browser can compute with, best first. */
export async function kinds() {
  // The build for WebGPU waits for the card by WebAssembly's JSPI, which not every browser with WebGPU has.
  if (!navigator.gpu || !('Suspending' in WebAssembly)) return ['wasm'];
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  // A fallback adapter is the processor in a card's clothes, and slow.
  return adapter && !adapter.info?.isFallbackAdapter ? ['webgpu', 'wasm'] : ['wasm'];
}

const loaded = {}; // each build once, for all networks

export const isLoaded = (kind) => kind in loaded;

/**
 * @param about of the manifest: script, loader and binary of that build.
 * @param progress hears of each piece that arrives (bytes on the way).
 * @returns {create, Tensor, onProcessor}: create(bytes) opens a graph; onProcessor is the same runtime without the card.
 */
export function loadRuntime(about, kind, progress) {
  loaded[kind] ??= (async () => {
    const wasmBinary = await bytes(about.binary, progress);
    const ort = await import(address(about.script));
    Object.assign(ort.env.wasm, {
      numThreads: 1, // more need headers that a plain web server does not send
      wasmBinary,
      wasmPaths: { mjs: address(about.loader) },
    });
    ort.env.logLevel = 'error';
    const by = (provider) => ({
      create: (graph) => ort.InferenceSession.create(graph, { executionProviders: [provider] }),
      Tensor: ort.Tensor,
    });
    return { ...by(kind), onProcessor: by('wasm') };
  })();
  loaded[kind].catch(() => delete loaded[kind]); // try again, after a lost connection say
  return loaded[kind];
}
