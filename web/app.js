// The page: controls to one request, the report to the screen, and the address bar as the place where the state lives (share link, back button).
import { ask, latest } from './engine.js';
import { bytes, count, words } from './format.js';
import { draw } from './chart.js';

const $ = (id) => document.getElementById(id);
const START = { gpu: 'RTX 4090', gpus: '1', depth: '20', 'device-batch-size': '-1', 'max-seq-len': '2048' };
const CONTROLLED = ['gpu', 'gpus', 'depth', 'device-batch-size', 'max-seq-len'];  // by a control of their own; other flags are generated
const NOT_HERE = ['json', 'color', 'ascii', 'quiet', 'verbose', 'help', 'timeline', 'svg'];
const VERDICTS = { fits: 'It fits', tight: 'It is tight', wont_fit: "It won't fit" };

let state = { ...START };
let report = null, picture = null, peak = 0, started = false;
const explain = latest(), planning = latest(), tabulating = latest();

// ---- state and address
function read_address() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  state = { ...START, ...given };
}
function write_address() {
  const changed = Object.entries(state).filter(([key, value]) => value !== undefined && value !== START[key]);
  const hash = new URLSearchParams(changed).toString();
  history.replaceState(null, '', hash ? `#${hash}` : location.pathname);
}
function arguments_of(more = {}) {
  return { ...Object.fromEntries(Object.entries(state).map(([key, value]) => [key, value === 'true' ? true : value])), ...more };
}
function set(changes) {
  state = { ...state, ...changes };
  for (const key of Object.keys(state)) if (state[key] === undefined) delete state[key];
  write_address();
  show_controls();
  answer();
}

// ---- controls
function show_controls() {
  const batch = Number(state['device-batch-size']), largest = batch === -1;
  if (document.activeElement !== $('gpu')) $('gpu').value = state.gpu;
  $('depth').value = state.depth;
  if (String(report?.workload.depth) !== state.depth) $('depth-out').value = state.depth;
  $('length').value = Math.log2(state['max-seq-len']);
  $('length-out').value = state['max-seq-len'];
  $('largest').checked = largest;
  if (!largest) {
    $('batch').value = Math.log2(batch);
    $('batch-out').value = String(batch);
  }
  for (const radio of $('gpus').querySelectorAll('input')) radio.checked = radio.value === state.gpus;
  for (const input of $('flags').querySelectorAll('[data-flag]')) {
    if (input.type === 'checkbox') input.checked = state[input.dataset.flag] === 'true';
    else if (document.activeElement !== input) input.value = state[input.dataset.flag] ?? '';
  }
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
  $('gpu').addEventListener('change', () => set({ gpu: $('gpu').value.trim() || START.gpu }));
  $('gpu').addEventListener('focus', () => $('gpu').select());
  $('depth').addEventListener('input', () => set({ depth: $('depth').value }));
  $('batch').addEventListener('input', () => set({ 'device-batch-size': String(2 ** $('batch').value) }));
  $('largest').addEventListener('change', () => set({ 'device-batch-size': $('largest').checked ? '-1' : String(report?.workload.run.device_batch_size ?? 1) }));
  $('length').addEventListener('input', () => set({ 'max-seq-len': String(2 ** $('length').value) }));
}
// Flags come from the engine's own command table: a new one appears here by itself.
async function fill_from_engine() {
  const [help, gpus, version] = await Promise.all([ask({ command: 'help', operands: ['explain'] }), ask({ command: 'list', operands: ['gpus'] }), ask({ command: 'version' })]);
  $('version').textContent = `dryfit ${JSON.parse(version.body).dryfit}.`;
  $('gpu-names').append(...JSON.parse(gpus.body).gpus.map((gpu) => Object.assign(document.createElement('option'), { value: gpu.name, label: bytes(gpu.total_bytes) })));
  for (const flag of JSON.parse(help.body).commands[0].flags) {
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
  if (Object.keys(state).some((key) => !CONTROLLED.includes(key))) $('more').open = true;
  show_controls();
}

// ---- the answer
async function answer() {
  $('report').classList.add('stale');
  $('answer').setAttribute('aria-busy', 'true');
  const reply = await explain({ command: 'explain', args: arguments_of({ timeline: true }) });
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
  $('took').textContent = `This answer took ${reply.ms < 10 ? reply.ms.toFixed(1) : Math.round(reply.ms)} ms.`;
  later();
}
function show_error(error) {
  $('verdict').dataset.verdict = 'error';
  $('word').textContent = 'Not a legal run';
  $('line').textContent = '';
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
  document.title = `${VERDICTS[verdict]}: d${workload.depth}, ${bytes(memory.process.bytes)} | dryfit`;
  if (state['device-batch-size'] === '-1') {
    $('batch').value = Math.log2(run.device_batch_size);
    $('batch-out').value = String(run.device_batch_size);
  }
  $('depth-out').value = `${workload.depth} · ${count(workload.params)}`;
  for (const [id, text] of [['depth', `${workload.depth} layers, ${count(workload.params)} parameters`], ['batch', `${run.device_batch_size} sequences`], ['length', `${run.max_seq_len} tokens`]]) $(id).setAttribute('aria-valuetext', text);
  $('command').textContent = report.command;
  show_meter();
  show_ladder();
  show_levers();
  show_chart();
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
  const between = (e) => `95 %: ${bytes(e.low)} to ${bytes(e.high)}`;
  $('ladder').tBodies[0].replaceChildren(
    row('allocated', bytes(allocated.bytes), `max_memory_allocated; ${between(allocated)}`), row('reserved', bytes(reserved.bytes), `max_memory_reserved; ${between(reserved)}`),
    row('process', bytes(process.bytes), `what nvidia-smi shows; ${between(process)}`), row('usable', bytes(report.machine.usable_bytes), `of ${bytes(report.machine.total_bytes)}; the driver keeps the rest`), row('headroom', bytes(headroom_bytes), 'usable = process + headroom'));
}
function show_levers() {
  const items = report.alternatives.map((a) => {
    const li = document.createElement('li'), result = document.createElement('span'), note = document.createElement('small');
    const text = Object.entries(a.change).map(([key, value]) => (key.startsWith('--') ? `${key} ${value}`.trim() : `${key}: ${value}`)).join(' ');
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
    await show_plan();
    if ($('table-section').open) show_table();
  }, 200);
}
async function show_plan() {
  const { depth, 'device-batch-size': batch, ...rest } = arguments_of();
  const key = JSON.stringify(rest);
  if (key !== planned) {
    const reply = await planning({ command: 'plan', args: rest });
    if (reply === null) return;
    const body = JSON.parse(reply.body);
    planned = key;
    $('plan').replaceChildren();
    $('plan-why').textContent = body.error ? `${body.error.message}; ${body.error.hint}` : body.why;
    if (body.error) {
      $('plan-machine').textContent = state.gpu;
      return;
    }
    if (body.plans.length > 0) $('plan-machine').textContent = `${body.plans[0].machine.gpus} × ${body.plans[0].machine.gpu}`;
    const head = $('plan').createTHead().insertRow();
    for (const text of ['depth', 'parameters', 'device batch', 'accumulation', 'peak', 'headroom']) head.append(Object.assign(document.createElement('th'), { textContent: text, scope: 'col' }));
    const rows = $('plan').createTBody();
    body.plans.forEach((p, i) => {
      const pick = Object.assign(document.createElement('button'), { type: 'button', textContent: `d${p.workload.depth}` });
      pick.addEventListener('click', () => set({ depth: String(p.workload.depth), 'device-batch-size': String(p.workload.run.device_batch_size) }));
      const tr = row(pick, count(p.workload.params), String(p.workload.run.device_batch_size), String(p.workload.run.grad_accum_steps), bytes(p.memory.process.bytes), bytes(p.memory.headroom_bytes));
      if (i === body.chosen) tr.setAttribute('aria-current', 'true');
      rows.append(tr);
    });
  }
}
async function show_table() {
  const { gpu, depth, 'device-batch-size': batch, ...rest } = arguments_of();
  const allowed = Object.fromEntries(Object.entries(rest).filter(([key]) => ['gpus', 'max-seq-len', 'nanochat', 'fp8', 'window-pattern', 'vocab-size'].includes(key)));
  const key = JSON.stringify(allowed);
  if (key === tabled) return;
  const reply = await tabulating({ command: 'table', args: allowed });
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
  if (/^(\$ |[A-Z_]+=\S+ )*(python3?|torchrun|uv run)\b/.test(text) && !/out of memory/i.test(text)) {
    const reply = await ask({ command: 'explain', args: { gpu: state.gpu }, paste: text.replace(/^\$ /, '') });
    const body = JSON.parse(reply.body);
    if (body.error) {
      out.textContent = `${body.error.message}\n${body.error.hint}`;
      return;
    }
    const { run, depth, version } = body.workload;
    out.textContent = 'The controls above show this command now.';
    set({ depth: String(depth), gpus: String(run.world_size), 'device-batch-size': String(run.device_batch_size), 'max-seq-len': String(run.max_seq_len), 'total-batch-size': String(run.total_batch_size), fp8: run.fp8 ? 'true' : undefined, nanochat: version });
    $('answer').scrollIntoView({ block: 'start' });
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
if ('serviceWorker' in navigator && location.protocol.startsWith('http')) navigator.serviceWorker.register('sw.js').catch(() => { /* the page works without, while it is served */ });
