// ONNX Runtime, in one of two builds: WebGPU for the graphics card, or WebAssembly for the processor.

import { address } from './fetching.mjs';

export const PLACES = { webgpu: 'graphics card', wasm: 'processor' };

/** Where this browser can compute, best first. */
export async function kinds() {
  // The build for WebGPU needs WebAssembly's JSPI, which not every browser with WebGPU has.
  if (!navigator.gpu || !('Suspending' in WebAssembly)) return ['wasm'];
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  // A fallback adapter emulates a card on the processor, slowly.
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
      numThreads: 1, // more would need headers that a plain web server does not send
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
