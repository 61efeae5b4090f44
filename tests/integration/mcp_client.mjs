// The official TypeScript client against `dryfit mcp`. Arguments: the folder of node_modules, the binary, a memory snapshot. Prints what it saw as JSON.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, binary, snapshot_file] = process.argv.slice(2);
const require = createRequire(join(folder, 'package.json'));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
const { StdioClientTransport } = await load('@modelcontextprotocol/sdk/client/stdio.js');

const client = new Client({ name: 'test', version: '0' });
await client.connect(new StdioClientTransport({ command: binary, args: ['mcp'], env: { XDG_DATA_HOME: '/nonexistent' } }));
const { tools } = await client.listTools();  // the client keeps the output schemas, and validates every answer against them
const call = (name, args) => client.callTool({ name, arguments: args });
const answer = await call('dryfit_check', { depth: 26, device_batch_size: 32, gpu: 'h100', gpus: 8 });
const explained = await call('dryfit_explain', { command: 'python -m scripts.base_train --depth=8', gpu: 'RTX 4090', timeline: true });
const plan = await call('dryfit_plan', { gpu: 'RTX 4090' });
const offers = await call('dryfit_plan', { depth: 12, offers: true });
const table = await call('dryfit_table', { gpu: ['t4', 'h200'], depths: [4, 12] });
const doctor = await call('dryfit_doctor', { text: 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 8.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 3.42 GiB is free.\n' });
const snapshot = await call('dryfit_doctor', { file: snapshot_file });
const wrong = await call('dryfit_check', { gpu: 'h10O' });
await client.ping();
console.log(JSON.stringify({
  tools: tools.map((t) => t.name), read_only: tools.every((t) => t.annotations.readOnlyHint), version: client.getServerVersion().version,
  text: answer.content[0].text, verdict: answer.structuredContent.verdict, points: explained.structuredContent.timeline.points.length,
  plans: plan.structuredContent.plans.length, offers: offers.structuredContent.offers.length, rows: table.structuredContent.rows.length, finding: doctor.structuredContent.finding, devices: snapshot.structuredContent.devices.length,
  errors: [answer.isError, plan.isError, wrong.isError], hint: JSON.parse(wrong.content[0].text).error.hint,
}));
await client.close();
