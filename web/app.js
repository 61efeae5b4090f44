// The page: controls to one request, the report to the screen, and the address bar as the place where the state lives (share link, back button).
import { ask, latest, outdated } from './engine.js';
import { between, bytes, count, duration, rate, words } from './format.js';
import { draw } from './chart.js';
import * as questions from './questions.js';

const $ = (id) => document.getElementById(id);
const CONTROLLED = ['gpu', 'gpus', 'model', 'depth', 'device-batch-size', 'max-seq-len'];  // by a control of their own; other flags are generated
const NOT_HERE = ['json', 'color', 'ascii', 'quiet', 'verbose', 'help', 'timeline', 'svg', 'alternatives'];
const NANOCHAT = 'nanochat';
const VERDICTS = { fits: 'It fits', tight: 'It is tight', wont_fit: "It won't fit" };

let state = {};  // what was chosen: flags by name, and `paste`, a training command that they are added to
let report = null, picture = null, peak = 0, started = false;
const explain = latest(), weighing = latest(), planning = latest(), tabulating = latest();

// ---- state and address
const value = (name) => state[name] ?? questions.defaults(state)[name];
function read_address() {
  state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}
function write_address() {
  const base = questions.defaults(state);
  const hash = new URLSearchParams(Object.entries(state).filter(([key, text]) => text !== base[key])).toString();
  history.replaceState(null, '', hash ? `#${hash}` : location.pathname);
}
function set(changes) {
  state = { ...state, ...changes };
  for (const key of Object.keys(state)) if (state[key] === undefined) delete state[key];
  write_address();
  show_controls();
  answer();
}

// ---- controls
// A control shows what was chosen, or else what the engine took.
function show_controls() {
  const run = report?.workload.run;
  const hugging = state.paste === undefined ? state.model !== undefined : report?.workload.family === 'transformers';
  if (document.activeElement !== $('gpu')) $('gpu').value = value('gpu');
  if (document.activeElement !== $('model')) $('model').value = value('model') ?? (hugging ? report.workload.model.name : NANOCHAT);
  $('depth-field').hidden = hugging;
  for (const id of ['plan-section', 'table-section']) $(id).hidden = hugging;  // both are nanochat's
  $('depth').value = value('depth') ?? report?.workload.depth ?? questions.START.depth;
  if (String(report?.workload.depth) !== $('depth').value) $('depth-out').value = $('depth').value;
  const length = value('max-seq-len') ?? run?.max_seq_len ?? questions.START['max-seq-len'];
  $('length').value = Math.log2(length);
  $('length-out').value = length;
  const batch = Number(value('device-batch-size') ?? run?.device_batch_size ?? 1), largest = batch === -1;
  $('largest').checked = largest;
  if (!largest) {
    $('batch').value = Math.log2(batch);
    $('batch-out').value = String(batch);
  }
  const gpus = value('gpus') ?? String(run?.world_size);
  for (const radio of $('gpus').querySelectorAll('input')) radio.checked = radio.value === gpus;
  for (const input of $('flags').querySelectorAll('[data-flag]')) {
    if (input.type === 'checkbox') input.checked = state[input.dataset.flag] === 'true';
    else if (document.activeElement !== input) input.value = state[input.dataset.flag] ?? '';
  }
  $('pasted').hidden = state.paste === undefined;
  $('pasted-text').textContent = state.paste ?? '';
}
function wire_controls() {
  $('controls').addEventListener('submit', (event) => event.preventDefault());
  for (const n of ['1', '2', '4', '8']) {
    const label = document.createElement('label'), radio = document.createElement('input');
    Object.assign(radio, { type: 'radio', name: 'gpus', value: n });
    radio.addEventListener('change', () => set({ gpus: n }));
    label.append(radio, n);
    $('gpus').append(label);
  }
  for (const id of ['gpu', 'model']) $(id).addEventListener('focus', () => $(id).select());
  $('gpu').addEventListener('change', () => set({ gpu: $('gpu').value.trim() || questions.START.gpu }));
  // another kind of model has other flags: the machine stays
  $('model').addEventListener('change', () => {
    const name = $('model').value.trim();
    state = Object.fromEntries(Object.entries(state).filter(([key]) => ['gpu', 'gpus'].includes(key)));
    set({ model: name === '' || name.toLowerCase() === NANOCHAT ? undefined : name });
  });
  $('forget').addEventListener('click', () => {
    state = { gpu: value('gpu') };
    set({});
  });
  $('depth').addEventListener('input', () => set({ depth: $('depth').value }));
  $('batch').addEventListener('input', () => set({ 'device-batch-size': String(2 ** $('batch').value) }));
  $('largest').addEventListener('change', () => set({ 'device-batch-size': $('largest').checked ? '-1' : String(report?.workload.run.device_batch_size ?? 1) }));
  $('length').addEventListener('input', () => set({ 'max-seq-len': String(2 ** $('length').value) }));
}
// Flags come from the engine's own command table: a new one appears here by itself.
async function fill_from_engine() {
  const [help, gpus, models, version] = (await Promise.all(questions.LISTS.map(ask))).map((reply) => JSON.parse(reply.body));
  const options = (list) => list.map(([value, label]) => Object.assign(document.createElement('option'), { value, label }));
  $('version').textContent = `dryfit ${version.dryfit}.`;
  $('gpu-names').append(...options(gpus.gpus.map((gpu) => [gpu.name, bytes(gpu.total_bytes)])));
  $('model-names').append(...options([[NANOCHAT, 'by depth'], ...models.presets.map((model) => [model.name, count(model.params)])]));
  for (const flag of help.commands[0].flags) {
    if (CONTROLLED.includes(flag.name) || NOT_HERE.includes(flag.name) || flag.argument === 'FILE') continue;
    const label = document.createElement('label'), input = document.createElement('input'), help_text = document.createElement('span');
    input.dataset.flag = flag.name;
    help_text.className = 'help';
    help_text.textContent = flag.help;
    if (flag.argument === null) {
      label.className = 'switch';
      input.type = 'checkbox';
      input.addEventListener('change', () => set({ [flag.name]: input.checked ? 'true' : undefined }));
      label.append(input, `${flag.name}: `, help_text);
    } else {
      input.placeholder = flag.argument;
      input.spellcheck = false;
      input.addEventListener('change', () => set({ [flag.name]: input.value.trim() || undefined }));
      label.append(flag.name, help_text, input);
    }
    $('flags').append(label);
  }
  if (Object.keys(state).some((key) => key !== 'paste' && !CONTROLLED.includes(key))) $('more').open = true;
  show_controls();
}

// ---- the answer
async function answer() {
  $('report').classList.add('stale');
  $('answer').setAttribute('aria-busy', 'true');
  const reply = await explain(questions.run(state));
  if (reply === null) return;  // a newer question is on its way
  const body = JSON.parse(reply.body);
  if (reply.newest) {
    $('report').classList.remove('stale');
    $('answer').setAttribute('aria-busy', 'false');
  }
  if (body.error) {
    show_error(body.error);
  } else {
    report = body;
    show_report();
  }
  if (!started) {
    started = true;
    performance.mark('dryfit-first-answer');
    fill_from_engine();
  }
  $('took').textContent = reply.ms === undefined ? 'This answer was computed when the page was built.' : `This answer took ${reply.ms < 10 ? reply.ms.toFixed(1) : Math.round(reply.ms)} ms.`;
  later();
}
function show_error(error) {
  $('verdict').dataset.verdict = 'error';
  $('word').textContent = 'Not a legal run';
  $('line').textContent = $('speed').textContent = '';
  $('error').hidden = false;
  $('report').hidden = report === null;
  $('report').classList.add('stale');
  $('error').replaceChildren(...[error.message, error.hint].map((text) => Object.assign(document.createElement('p'), { textContent: text })));
}
function show_report() {
  const { memory, machine, workload, verdict } = report, run = workload.run;
  $('error').hidden = true;
  $('report').hidden = false;
  $('verdict').dataset.verdict = verdict;
  $('word').textContent = VERDICTS[verdict];
  const peak = Object.assign(document.createElement('b'), { textContent: bytes(memory.process.bytes) });
  const room = memory.headroom_bytes < 0 ? `${bytes(-memory.headroom_bytes)} too much` : `${bytes(memory.headroom_bytes)} to spare`;
  $('line').replaceChildren(peak, ` of ${bytes(machine.usable_bytes)} on ${machine.gpus} × ${machine.gpu}, ${room}`);
  const name = workload.family === 'nanochat' ? `d${workload.depth}` : workload.model.name;
  document.title = `${VERDICTS[verdict]}: ${name}, ${bytes(memory.process.bytes)} | dryfit`;
  show_controls();
  if (value('device-batch-size') === '-1') {
    $('batch').value = Math.log2(run.device_batch_size);
    $('batch-out').value = String(run.device_batch_size);
  }
  $('model-out').value = count(workload.params);
  $('depth-out').value = String(workload.depth);
  for (const [id, text] of [['depth', `${workload.depth} layers, ${count(workload.params)} parameters`], ['batch', `${run.device_batch_size} sequences`], ['length', `${run.max_seq_len} tokens`]]) $(id).setAttribute('aria-valuetext', text);
  $('command').replaceChildren(...unbroken(report.command));
  $('speed').textContent = verdict === 'wont_fit' ? '' : speed_line(report.speed);
  show_meter();
  show_ladder();
  $('levers').classList.add('stale');
  show_chart();
}
// Words of a command, none of them parted at its dashes.
function unbroken(command) {
  return command.split(/( +|\n)/).map((text) => (text.trim() === '' ? text : Object.assign(document.createElement('span'), { textContent: text })));
}
// One line: how fast, how long, what it costs. Empty where the engine does not know.
function speed_line(speed) {
  if (speed === null) return '';
  const parts = [rate(speed.tokens_per_second)];
  if (speed.horizon) parts.push(`${duration(speed.horizon.seconds)} to ${speed.horizon.rule}`);
  if (speed.cost) parts.push(`about $${speed.cost.usd < 10 ? speed.cost.usd.toFixed(2) : Math.round(speed.cost.usd)} at ${speed.cost.provider}, price ${speed.cost.seen ? `seen ${speed.cost.seen}` : 'undated'}`);
  else if (speed.usd_per_million_tokens !== null) parts.push(`about $${speed.usd_per_million_tokens.toPrecision(2)} a million tokens`);
  return parts.join(' · ');
}
function show_meter() {
  const top = Math.max(report.machine.usable_bytes, report.memory.process.bytes);
  $('meter').replaceChildren(...report.categories.filter((c) => c.at_peak_bytes > 0).map((c) => {
    const cell = document.createElement('i');
    cell.style.cssText = `width: ${(c.at_peak_bytes / top) * 100}%; background: var(--${c.name})`;
    cell.title = `${c.name}: ${bytes(c.at_peak_bytes)}`;
    return cell;
  }));
  if (report.memory.process.bytes > report.machine.usable_bytes) $('meter').append(Object.assign(document.createElement('u'), { style: `left: ${(report.machine.usable_bytes / top) * 100}%`, title: 'usable' }));
  $('meter').setAttribute('aria-label', `${bytes(report.memory.process.bytes)} of ${bytes(report.machine.usable_bytes)}: ${report.categories.filter((c) => c.at_peak_bytes > 0).map((c) => `${c.name} ${bytes(c.at_peak_bytes)}`).join(', ')}`);
}
function row(...cells) {
  const tr = document.createElement('tr');
  cells.forEach((cell, i) => {
    const td = document.createElement(i === 0 ? 'th' : 'td');
    if (i === 0) td.scope = 'row';
    td.append(cell);
    tr.append(td);
  });
  return tr;
}
function show_ladder() {
  const { allocated, reserved, process, headroom_bytes } = report.memory;
  const rung = (name, note, amount, e) => {
    const head = document.createElement('span');
    head.append(name, Object.assign(document.createElement('small'), { textContent: note }));
    return row(head, bytes(amount), e ? between(e.low, e.high) : '');
  };
  $('ladder').tBodies[0].replaceChildren(
    rung('allocated', 'max_memory_allocated', allocated.bytes, allocated), rung('reserved', 'max_memory_reserved', reserved.bytes, reserved), rung('process', 'what nvidia-smi shows', process.bytes, process),
    rung('usable', `of ${bytes(report.machine.total_bytes)}; the driver keeps the rest`, report.machine.usable_bytes), rung('headroom', 'usable − process', headroom_bytes));
}
// Asked after the answer: it takes longer than all the rest.
async function weigh_levers() {
  const asked = report, reply = await weighing(questions.levers(state));
  if (reply === null || report !== asked) return;
  const body = JSON.parse(reply.body);
  if (body.error) return;  // said above
  $('levers').classList.remove('stale');
  show_levers(body.alternatives);
}
function show_levers(alternatives) {
  const items = alternatives.map((a) => {
    const li = document.createElement('li'), result = document.createElement('span'), note = document.createElement('small');
    const text = Object.entries(a.change).map(([key, value]) => (key.startsWith('--') ? `${key} ${value}`.trim() : /^[A-Z]/.test(key) ? `${key}=${value}` : `${key}: ${value}`)).join(' ');
    const flags = Object.entries(a.change).filter(([key]) => key.startsWith('--'));
    const name = document.createElement(flags.length > 0 && !a.needs_code_change ? 'button' : 'span');
    name.textContent = text;
    if (name.tagName === 'BUTTON') {
      name.type = 'button';
      name.addEventListener('click', () => set(Object.fromEntries(flags.map(([key, value]) => [key.slice(2), value === '' ? 'true' : value]))));
    }
    result.textContent = a.process_bytes === null ? '' : bytes(a.process_bytes);
    if (a.verdict) {
      result.className = a.verdict;
      result.append(` ${{ fits: 'fits', tight: 'tight', wont_fit: "won't fit" }[a.verdict]}`);
    }
    note.textContent = a.note;
    li.append(name, result, note);
    return li;
  });
  $('levers').replaceChildren(...items);
}

// ---- the picture
function show_chart() {
  const points = report.timeline.points;
  const width = Math.max(280, $('chart').clientWidth);
  picture = draw(report, width);
  $('chart').replaceChildren(picture.svg);
  peak = points.reduce((best, p, i) => (p.allocated_bytes > points[best].allocated_bytes ? i : best), 0);
  $('scrub').max = String(points.length - 1);
  show_moment(peak);
}
function show_moment(i) {
  const { points, categories } = report.timeline, point = points[i];
  picture.point(i);
  $('scrub').value = String(i);
  const step = point.micro_step > 0 ? `, micro-step ${point.micro_step}` : '';
  const text = `${i === peak ? 'Peak: ' : ''}${bytes(point.allocated_bytes)} allocated in ${words(point.phase)}${step}, ${point.op}`;
  $('moment').textContent = text;
  $('scrub').setAttribute('aria-valuetext', text);
  $('legend').replaceChildren(...categories.map((name, c) => [name, point.by_category[c]]).filter(([name]) => points.some((p) => p.by_category[categories.indexOf(name)] > 0)).map(([name, value]) => {
    const li = document.createElement('li'), swatch = document.createElement('i'), label = document.createElement('span'), amount = document.createElement('span');
    swatch.style.background = `var(--${name})`;
    label.textContent = name;
    amount.textContent = bytes(value);
    if (value === 0) li.dataset.zero = '';
    li.append(swatch, label, amount);
    return li;
  }));
}
function wire_chart() {
  $('chart').addEventListener('pointermove', (event) => report && show_moment(picture.at(event.clientX - $('chart').getBoundingClientRect().left)));
  $('scrub').addEventListener('input', () => report && show_moment(Number($('scrub').value)));
  new ResizeObserver(() => report && picture && Math.abs($('chart').clientWidth - picture.svg.viewBox.baseVal.width) > 1 && show_chart()).observe($('chart'));
}

// ---- the lists below: asked once the answer stands, and quiet while a slider moves
let timer = 0, planned = '', tabled = '';
function later() {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    await weigh_levers();
    await show_plan();
    if ($('table-section').open) show_table();
  }, 200);
}
async function show_plan() {
  if ($('plan-section').hidden) return;
  const request = questions.plan(state, report?.machine), key = JSON.stringify(request);
  if (key === planned) return;
  const reply = await planning(request);
  if (reply === null) return;
  const body = JSON.parse(reply.body);
  planned = key;
  $('plan').replaceChildren();
  $('plan-why').textContent = body.error ? `${body.error.message}; ${body.error.hint}` : body.why;
  $('plan-machine').textContent = body.plans?.length > 0 ? `${body.plans[0].machine.gpus} × ${body.plans[0].machine.gpu}` : value('gpu');
  if (body.error) return;
  const head = $('plan').createTHead().insertRow();
  for (const text of ['depth', 'parameters', 'device batch', 'accumulation', 'peak', 'headroom', 'tok/s', 'time']) head.append(Object.assign(document.createElement('th'), { textContent: text, scope: 'col' }));
  const rows = $('plan').createTBody();
  body.plans.forEach((p, i) => {
    const run = p.workload.run;
    const pick = Object.assign(document.createElement('button'), { type: 'button', textContent: `d${p.workload.depth}` });
    pick.addEventListener('click', () => set({ depth: String(p.workload.depth), 'device-batch-size': String(run.device_batch_size) }));
    const tr = row(pick, count(p.workload.params), String(run.device_batch_size), String(run.grad_accum_steps), bytes(p.memory.process.bytes), bytes(p.memory.headroom_bytes),
      p.speed ? rate(p.speed.tokens_per_second).replace(' tok/s', '') : '–', p.speed?.horizon ? duration(p.speed.horizon.seconds) : '–');
    if (i === body.chosen) tr.setAttribute('aria-current', 'true');
    rows.append(tr);
  });
}
async function show_table() {
  const request = questions.table(state, report?.machine), key = JSON.stringify(request);
  if (key === tabled) return;
  const reply = await tabulating(request);
  if (reply === null) return;
  const body = JSON.parse(reply.body);
  tabled = key;
  $('table').replaceChildren();
  if (body.error) {
    $('table').createCaption().textContent = `${body.error.message}; ${body.error.hint}`;
    return;
  }
  const depths = [...new Set(body.rows.map((r) => r.depth))];
  const head = $('table').createTHead().insertRow();
  for (const text of ['GPU', 'usable', ...depths.map((d) => `d${d}`)]) head.append(Object.assign(document.createElement('th'), { textContent: text, scope: 'col' }));
  const rows = $('table').createTBody();
  for (const name of new Set(body.rows.map((r) => r.gpu))) {
    const mine = body.rows.filter((r) => r.gpu === name);
    rows.append(row(name, bytes(mine[0].usable_bytes), ...mine.map((r) => {
      if (r.device_batch_size === null) return Object.assign(document.createElement('span'), { textContent: '–', ariaLabel: 'does not fit' });
      const pick = Object.assign(document.createElement('button'), { type: 'button', textContent: String(r.device_batch_size), ariaLabel: `device batch ${r.device_batch_size} on ${name} at depth ${r.depth}` });
      pick.addEventListener('click', () => set({ gpu: name, depth: String(r.depth), 'device-batch-size': String(r.device_batch_size) }));
      return pick;
    })));
  }
}

// ---- pasted text
async function read_pasted() {
  const text = $('paste').value.trim(), out = $('diagnosis');
  out.hidden = text === '';
  if (text === '') return;
  if (/^(\$ |[A-Z_]+=\S+ )*(python3?|torchrun|accelerate|deepspeed|uv run)\b/.test(text) && !/out of memory/i.test(text)) {
    const paste = text.replace(/^\$ /, '');
    const body = JSON.parse((await ask({ command: 'explain', args: { gpu: value('gpu') }, paste })).body);
    out.textContent = body.error ? `${body.error.message}\n${body.error.hint}` : 'The answer above is for this command now.';
    if (body.error) return;
    state = { gpu: value('gpu') };
    set({ paste });
    $('verdict').scrollIntoView({ block: 'start' });
    return;
  }
  out.textContent = (await ask({ command: 'doctor', operands: ['-'], input: `${text}\n`, text: true })).body;
}

// ---- the bar at the top
async function copy(text, button) {
  const name = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  } catch {
    button.textContent = 'Press Ctrl C';  // no permission: the text is there to be marked
  }
  setTimeout(() => { button.textContent = name; }, 1500);
}
function theme(dark) {
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  $('theme').setAttribute('aria-pressed', String(dark));
}
function wire_bar() {
  $('share').addEventListener('click', () => copy(location.href, $('share')));
  $('copy').addEventListener('click', () => copy($('command').textContent, $('copy')));
  $('theme').addEventListener('click', () => {
    const dark = document.documentElement.dataset.theme !== 'dark';
    theme(dark);
    try { localStorage.setItem('theme', dark ? 'dark' : 'light'); } catch { /* private window: it holds for this visit */ }
  });
  let wait = 0;
  $('paste').addEventListener('input', () => {
    clearTimeout(wait);
    wait = setTimeout(read_pasted, 150);
  });
  $('table-section').addEventListener('toggle', () => $('table-section').open && show_table());
  addEventListener('hashchange', () => {
    read_address();
    show_controls();
    answer();
  });
}

let kept = null;
try { kept = localStorage.getItem('theme'); } catch { /* private window */ }
theme(kept ? kept === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches);
read_address();
wire_controls();
wire_chart();
wire_bar();
show_controls();
answer();
outdated.then(() => {
  planned = '';
  answer();
});
if ('serviceWorker' in navigator && location.protocol.startsWith('http')) navigator.serviceWorker.register('sw.js').catch(() => { /* the page works without, while it is served */ });
