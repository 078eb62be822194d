// What tests/node.py asks of node: call functions of the book's figures, answer in JSON.
// Standard input: [[module, function, arguments], …]; a function may also be the name of a constant.

import { readFileSync } from 'node:fs';

const folder = new URL('../book/_figures/figures/', import.meta.url);
const answers = [];
for (const [module, name, values] of JSON.parse(readFileSync(0, 'utf8'))) {
  const found = (await import(new URL(`${module}.mjs`, folder)))[name];
  answers.push(typeof found === 'function' ? found(...values) : found);
}
const exact = (_, value) => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value ?? null);
process.stdout.write(JSON.stringify(answers, exact));
