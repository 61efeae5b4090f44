// What the page asks the engine, as functions of what was chosen: no page, no engine. Requests are as include/dryfit/dryfit.h documents them.
export const START = { gpu: 'RTX 4090', gpus: '1', depth: '20', 'device-batch-size': '-1', 'max-seq-len': '2048' };

// What stands where nothing was chosen. A pasted command says it all by itself but for the card; a Hugging Face model has a length of its own.
export function defaults(state) {
  if (state.paste !== undefined) return { gpu: START.gpu };
  const { depth, 'max-seq-len': length, ...rest } = START;
  return state.model === undefined ? START : rest;
}
// state: flags by name, and `paste`, a training command that they are added to.
export function question(state, command, more = {}) {
  const { paste, ...flags } = { ...defaults(state), ...state };
  const args = Object.fromEntries(Object.entries(flags).map(([key, text]) => [key, text === 'true' ? true : text]));
  return { command, args: { ...args, ...more }, ...(paste === undefined ? {} : { paste }) };
}
export const run = (state) => question(state, 'explain', { timeline: true, alternatives: 0 });
export const levers = (state) => question(state, 'explain');
// The machine and the flags that are not this one run's.
function machine(state, found) {
  const { depth, 'device-batch-size': batch, gpus, ...rest } = question(state, 'plan').args;
  return { ...rest, gpus: String(found?.gpus ?? gpus) };
}
export const plan = (state, found) => ({ command: 'plan', args: machine(state, found) });
const TABLED = ['gpus', 'max-seq-len', 'nanochat', 'fp8', 'window-pattern', 'vocab-size'];
export const table = (state, found) => ({ command: 'table', args: Object.fromEntries(Object.entries(machine(state, found)).filter(([name]) => TABLED.includes(name))) });
export const LISTS = [{ command: 'help', operands: ['explain'] }, { command: 'list', operands: ['gpus'] }, { command: 'list', operands: ['models', ''] }, { command: 'version' }];

// All that the page asks by itself when it opens with nothing chosen, the answer to the run first: their answers come with it (tools/first_answers.mjs).
export const first = () => [run({}), levers({}), plan({}), ...LISTS];
