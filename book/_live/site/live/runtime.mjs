// ONNX Runtime, in one of two builds: for the graphics card by WebGPU, or for the processor by WebAssembly.

import { address } from './fetching.mjs';

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

/**
 * @param files of the manifest: script and loader of that build.
 * @param wasmBinary its binary; not needed once it is loaded.
 * @returns {create, Tensor, onProcessor}: create(bytes) opens a graph; onProcessor is the same runtime without the card.
 */
export async function loadRuntime(files, kind, wasmBinary) {
  if (!loaded[kind]) {
    const ort = await import(address(files.script));
    Object.assign(ort.env.wasm, {
      numThreads: 1, // more need headers that a plain web server does not send
      wasmBinary,
      wasmPaths: { mjs: address(files.loader) },
    });
    ort.env.logLevel = 'error';
    const by = (provider) => ({
      create: (graph) => ort.InferenceSession.create(graph, { executionProviders: [provider] }),
      Tensor: ort.Tensor,
    });
    loaded[kind] = { ...by(kind), onProcessor: by('wasm') };
  }
  return loaded[kind];
}
