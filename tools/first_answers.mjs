// Answers to what the page asks when it opens, by its own engine when it is built: they stand on the screen while the engine loads, and when nothing can load it.
// Usage: node tools/first_answers.mjs SITE: SITE/dryfit.wasm, worker.js and questions.js give SITE/first.js.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const site = process.argv[2];
// as text: an older node takes a .js file for a module only where a package.json says so
const module_of = (name) => import(`data:text/javascript,${encodeURIComponent(readFileSync(join(site, name), 'utf8'))}`);
const [{ load }, { first }] = await Promise.all(['worker.js', 'questions.js'].map(module_of));
const call = await load(new WebAssembly.Module(readFileSync(join(site, 'dryfit.wasm'))));
const rows = first().map((request) => {
  const { status, body } = call(request);
  if (status !== 0) throw new Error(`${JSON.stringify(request)}: status ${status}: ${body}`);
  return `  [${JSON.stringify(JSON.stringify(request))}, ${JSON.stringify({ status, body })}],\n`;
});
writeFileSync(join(site, 'first.js'), `// Written by tools/first_answers.mjs: requests, as text, and what dryfit.wasm beside this file answered when the page was built.\nexport const FIRST = [\n${rows.join('')}];\n`);
