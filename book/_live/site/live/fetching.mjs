// The book's own files; no other server is contacted.

const FILES = new URL('./files/', import.meta.url);

export const address = (file) => new URL(file, FILES).href;

/** The manifest written by the build; null if there is none. */
export async function manifest() {
  const answer = await fetch(address('manifest.json'), { cache: 'no-cache' }).catch(() => null);
  return answer?.ok ? answer.json() : null;
}

/** The bytes of a file, decompressed if it is gzip; `progress` is called with the size of each piece as downloaded. */
export async function bytes(file, progress = () => {}) {
  const answer = await fetch(address(file));
  if (!answer.ok) throw new Error(`${file}: the server returned HTTP ${answer.status}`);
  const pieces = [];
  const reader = answer.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    pieces.push(part.value);
    progress(part.value.length);
  }
  const content = new Blob(pieces);
  const start = new Uint8Array(await content.slice(0, 2).arrayBuffer());
  // Some servers declare gzip in a header; then the browser has decompressed it already.
  if (start[0] !== 0x1f || start[1] !== 0x8b) return new Uint8Array(await content.arrayBuffer());
  const expanded = content.stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(expanded).arrayBuffer());
}

/** The JSON in a file that may be gzip. */
export async function json(file) {
  return JSON.parse(new TextDecoder().decode(await bytes(file)));
}
