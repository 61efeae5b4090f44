// The page's own loader under node: requests as lines in, {status, body} as lines out. Argument: the folder of the site.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const site = process.argv[2];
const text = readFileSync(join(site, 'worker.js'), 'utf8');
const { load } = await import(`data:text/javascript,${encodeURIComponent(text)}`);  // node before 20.19 takes a file of this name for CommonJS
const call = await load(new WebAssembly.Module(readFileSync(join(site, 'dryfit.wasm'))));
for (const line of readFileSync(0, 'utf8').split('\n')) {
  if (line !== '') console.log(JSON.stringify(call(JSON.parse(line))));
}
