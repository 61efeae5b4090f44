// The page's own loader under node: requests as lines in, {status, body} as lines out. Argument: the folder of the site.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const site = process.argv[2];
const { load } = await import(pathToFileURL(join(site, 'worker.js')));
const call = await load(new WebAssembly.Module(readFileSync(join(site, 'dryfit.wasm'))));
for (const line of readFileSync(0, 'utf8').split('\n')) {
  if (line !== '') console.log(JSON.stringify(call(JSON.parse(line))));
}
