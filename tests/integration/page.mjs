// The page in Chromium: a first answer equal to the command line's and to the engine's in the page, without the engine too; controls, keyboard, share link, pasted texts, dark mode, offline, phone width.
// Arguments: the folder of node_modules, the address, the browser, a folder for screenshots, the command line's own answer (JSON). Prints findings and measures as JSON.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { readFileSync } from 'node:fs';

const [folder, address, browser_path, shots, expected_path] = process.argv.slice(2);
const require = createRequire(join(folder, 'package.json'));
const { chromium } = (await import(pathToFileURL(require.resolve('playwright-core')))).default;
const expected = JSON.parse(readFileSync(expected_path, 'utf8'));
const gib = (n) => `${(n / 1024 ** 3).toFixed(1)} GiB`;

const failures = [], measures = {};
const expect = (condition, what) => { if (!condition) failures.push(what); };
const browser = await chromium.launch({ executablePath: browser_path, args: ['--no-sandbox'] });

async function open(context, hash = '') {
  const page = await context.newPage();
  page.on('console', (message) => message.type() === 'error' && !message.text().includes('ERR_INTERNET_DISCONNECTED') && failures.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => failures.push(`error in the page: ${error}`));
  page.on('request', (request) => !request.url().startsWith(address) && !request.url().startsWith('data:') && failures.push(`asks ${request.url()}`));
  await page.goto(address + hash);
  await settled(page);
  return page;
}
// Until the newest question is answered.
const settled = (page) => page.waitForFunction(() => document.querySelector('#answer').getAttribute('aria-busy') === 'false', null, { timeout: 60000 });
const text = (page, selector) => page.locator(selector).innerText();
const hash = (page) => page.evaluate(() => location.hash);
const first_answer = (page) => page.evaluate(() => {
  const stood = performance.getEntriesByName('dryfit-first-answer')[0].startTime;
  return { after_start: stood, after_load: stood - performance.getEntriesByType('navigation')[0].loadEventEnd };
});

const desktop = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light', permissions: ['clipboard-read', 'clipboard-write'] });
{
  const responses = [];
  desktop.on('response', (response) => responses.push(response));
  const page = await open(desktop);
  expect((await text(page, '#word')) === { fits: 'It fits', tight: 'It is tight', wont_fit: "It won't fit" }[expected.verdict], `verdict ${await text(page, '#word')}`);
  const line = await text(page, '#line');
  expect(line.includes(gib(expected.memory.process.bytes)) && line.includes(gib(expected.machine.usable_bytes)), `line ${line}, not ${gib(expected.memory.process.bytes)}`);
  expect((await text(page, '#command')) === expected.command, `command ${await text(page, '#command')}`);
  expect((await page.locator('#chart polygon').count()) >= 5, 'the chart has its areas');
  const close = (await text(page, '#moment')).match(/^Peak: ([\d.]+) GiB/);  // thinned points: the remainders of segments are not among them
  expect(close && Math.abs(close[1] - expected.memory.allocated.bytes / 1024 ** 3) < 0.2, `moment ${await text(page, '#moment')}`);
  await page.waitForFunction(() => document.querySelectorAll('#plan tbody tr').length > 2 && document.querySelectorAll('#gpu-names option').length > 200, null, { timeout: 60000 });
  measures.first_answer_ms = await first_answer(page);
  measures.bytes_by_url = {};
  let carried = 0;  // over the wire, the service worker's own questions among them
  for (const response of responses) {
    await response.finished();
    const size = (await response.request().sizes()).responseBodySize, name = new URL(response.url()).pathname;
    measures.bytes_by_url[name] = (measures.bytes_by_url[name] ?? 0) + size;
    carried += size;
  }
  measures.bytes_sent = carried;
  expect(carried > 100000 && carried < 1.5e6, `${carried} bytes for the page`);
  await page.screenshot({ path: join(shots, 'desktop-light.png'), fullPage: true });

  // what came with the page is all that it asks by itself, and what its engine answers, byte for byte
  expect((await text(page, '#took')).includes('when the page was built'), `the first answer: ${await text(page, '#took')}`);
  const other = await page.evaluate(async () => {
    const [{ FIRST }, { first }, { load }] = await Promise.all(['first.js', 'questions.js', 'worker.js'].map((name) => import(`./${name}`)));
    const call = await load(await WebAssembly.compileStreaming(fetch('dryfit.wasm')));
    const asked = first().map((request) => JSON.stringify(request));
    return asked.concat(FIRST.map(([request]) => request)).filter((request) => {
      const came = new Map(FIRST).get(request), engine = call(JSON.parse(request));
      return !asked.includes(request) || came?.status !== engine.status || came.body !== engine.body;
    });
  });
  expect(other.length === 0, `came with the page and is not what its engine says: ${other}`);

  // keyboard: a step of depth, then the moment of the run
  await page.locator('#depth').focus();
  await page.keyboard.press('ArrowRight');
  await settled(page);
  expect((await hash(page)).includes('depth=21'), `address ${await hash(page)}`);
  expect((await text(page, '#command')).includes('--depth=21'), 'the command follows the slider');
  expect((await page.locator('#depth').getAttribute('aria-valuetext')).startsWith('21 layers'), 'the slider says what it stands for');
  await page.locator('#scrub').focus();
  const before = await text(page, '#moment');
  for (let i = 0; i < 5; ++i) await page.keyboard.press('ArrowLeft');
  expect((await text(page, '#moment')) !== before, 'the moment moves by keys');
  // a device batch of one's own, and back
  await page.locator('#largest').uncheck();
  await page.locator('#batch').focus();
  for (let i = 0; i < 3; ++i) await page.keyboard.press('ArrowRight');
  await settled(page);
  expect((await page.locator('#verdict').getAttribute('data-verdict')) === 'wont_fit', 'such a batch does not fit a 4090');
  await page.waitForFunction(() => document.querySelectorAll('#levers:not(.stale) li').length > 3, null, { timeout: 20000 });
  await page.screenshot({ path: join(shots, 'desktop-wont-fit.png') });
  await page.locator('#largest').check();
  await page.locator('#gpus input[value="8"]').check();
  await settled(page);
  expect((await hash(page)).includes('gpus=8'), 'eight GPUs');

  // share link: another page shows the same
  await page.locator('#share').click();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  const shared = await desktop.newPage();
  await shared.goto(link);
  await settled(shared);
  expect((await text(shared, '#command')) === (await text(page, '#command')) && (await text(shared, '#line')) === (await text(page, '#line')), 'the link shows the same');
  await shared.close();
  await page.locator('#copy').click();
  expect((await page.evaluate(() => navigator.clipboard.readText())) === (await text(page, '#command')), 'the command is copied');

  // wrong input: said, with a way out; the page goes on
  await page.locator('#gpu').fill('h10O');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => !document.querySelector('#error').hidden);
  expect((await text(page, '#error')).includes('did you mean'), await text(page, '#error'));
  await page.screenshot({ path: join(shots, 'desktop-error.png') });
  await page.locator('#gpu').fill('H100');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('#error').hidden);
  await settled(page);
  expect((await text(page, '#line')).includes('H100'), 'goes on with an H100');

  // pasted texts
  await page.locator('#paste').fill('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 8.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 3.42 GiB is free. Including non-PyTorch memory, this process has 75.68 GiB memory in use. Of the allocated memory 73.90 GiB is allocated by PyTorch, and 613.00 MiB is reserved by PyTorch but unallocated.');
  await page.waitForFunction(() => document.querySelector('#diagnosis').textContent.includes('8.00 GiB'), null, { timeout: 20000 });
  await page.locator('#paste').scrollIntoViewIfNeeded();
  await page.screenshot({ path: join(shots, 'desktop-pasted.png') });
  await page.locator('#paste').fill('torchrun --nproc_per_node=4 -m scripts.base_train --depth=12 --device-batch-size=16');
  await page.waitForFunction(() => location.hash.includes('paste='), null, { timeout: 20000 });
  await settled(page);
  const shown = () => page.evaluate(() => [document.querySelector('#depth').value, document.querySelector('#gpus :checked').value, document.querySelector('#batch-out').value].join());
  expect((await shown()) === '12,4,16', `the controls show the pasted command: ${await shown()}`);
  expect((await text(page, '#command')).includes('--device-batch-size=16'), 'the pasted command is answered');
  await page.locator('#gpus input[value="2"]').check();
  await settled(page);
  expect((await text(page, '#command')).includes('--nproc_per_node=2') && (await page.locator('#pasted').isVisible()), 'a control wins over the pasted command');
  const as_pasted = await text(page, '#line');
  await page.reload();
  await settled(page);
  expect((await text(page, '#line')) === as_pasted, 'the address holds the pasted command');
  await page.locator('#forget').click();
  await settled(page);
  expect(!(await page.locator('#pasted').isVisible()) && (await text(page, '#command')).includes('--depth=20'), 'the pasted command is forgotten');

  // a Hugging Face model, and back
  await page.locator('#model').fill('llama-3.2-1b');
  await page.keyboard.press('Enter');
  await settled(page);
  expect((await text(page, '#command')).toLowerCase().includes('llama-3.2-1b') && (await page.title()).includes('llama-3.2-1b'), `a model: ${await text(page, '#command')}`);
  expect(!(await page.locator('#depth').isVisible()) && !(await page.locator('#plan-section').isVisible()), "nanochat's own controls are away");
  expect((await page.evaluate(() => document.querySelectorAll('#model-names option').length)) > 100, 'models are listed');
  await page.screenshot({ path: join(shots, 'desktop-model.png'), fullPage: true });
  await page.locator('#model').fill('nanochat');
  await page.keyboard.press('Enter');
  await settled(page);
  expect(await page.locator('#depth').isVisible(), 'back to nanochat');

  // the table, and a pick from it
  await page.locator('#table-section summary').click();
  await page.waitForFunction(() => document.querySelectorAll('#table tbody tr').length >= 5, null, { timeout: 120000 });
  await page.locator('#table tbody button').last().click();
  await settled(page);

  // dark mode stays
  await page.locator('#theme').click();
  await page.reload();
  await settled(page);
  expect((await page.evaluate(() => document.documentElement.dataset.theme)) === 'dark', 'dark mode stays');
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(shots, 'desktop-dark.png') });

  // names for those who do not see it
  const nameless = await page.evaluate(() => [...document.querySelectorAll('input, textarea, button, [role=img], table, summary')].filter((node) => {
    const named = node.getAttribute('aria-label') || node.getAttribute('aria-labelledby') || node.textContent.trim() || [...(node.labels ?? [])].some((l) => l.textContent.trim());
    return !named && node.offsetParent !== null;
  }).map((node) => node.outerHTML.slice(0, 80)));
  expect(nameless.length === 0, `without a name: ${nameless}`);
  expect((await page.locator('#meter').getAttribute('aria-label')).includes('weights'), 'the bar is told in words');

  // offline, once it was here
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.waitForFunction(async () => (await (await caches.open('dryfit')).keys()).length >= 11, null, { timeout: 30000 });
  await desktop.setOffline(true);
  await page.reload();
  await settled(page);
  expect((await text(page, '#command')).length > 20, 'answers offline');
  await desktop.setOffline(false);
  await page.close();
}

// without an engine the first answer stands; with one that says otherwise, the engine's does
{
  const context = await browser.newContext({ serviceWorkers: 'block' });
  await context.route('**/dryfit.wasm', (route) => route.abort());
  const page = await context.newPage();
  await page.goto(address);
  await page.waitForFunction(() => document.querySelectorAll('#levers:not(.stale) li').length > 0 && document.querySelectorAll('#plan tbody tr').length > 2 && document.querySelectorAll('#gpu-names option').length > 200, null, { timeout: 60000 });
  const right = await text(page, '#line');
  expect(right.includes(gib(expected.memory.process.bytes)), `without an engine: ${right}`);
  await page.locator('#depth').focus();
  await page.keyboard.press('ArrowRight');
  await page.waitForFunction(() => document.querySelector('#error').innerText.includes('reload the page'), null, { timeout: 20000 });
  await context.unroute('**/dryfit.wasm');
  await context.route('**/first.js', async (route) => {
    const response = await route.fetch(), told = await response.text(), other = told.replace(/(headroom_bytes\\": ?)/g, '$11');
    expect(other !== told, 'the answers that come with the page are not where this test looks');
    await route.fulfill({ response, body: other });
  });
  await page.goto('about:blank');
  await page.goto(address);
  await page.waitForFunction(() => document.querySelector('#took').innerText.includes('took'), null, { timeout: 60000 }).catch(() => failures.push('an answer of another release stays'));
  expect((await text(page, '#line')) === right, `an answer of another release: ${await text(page, '#line')}, not ${right}`);
  await context.close();
}

const phone = await browser.newContext({ viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: 'dark' });
{
  const page = await open(phone, '#gpu=NVIDIA+H100+80GB+HBM3&gpus=8&depth=26&device-batch-size=32');
  measures.shared_link_ms = await first_answer(page);
  expect((await page.evaluate(() => document.documentElement.dataset.theme)) === 'dark', 'the system asks for dark');
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - screen.width);
  expect(wide <= 0, `${wide} pixels too wide for a phone`);
  await page.locator('#more summary').click();
  const open_wide = await page.evaluate(() => document.documentElement.scrollWidth - screen.width);
  expect(open_wide <= 0, `${open_wide} pixels too wide with every flag open`);
  await page.locator('#more summary').click();
  const small = await page.evaluate(() => [...document.querySelectorAll('button, summary, input[type=range], input[list]')].filter((n) => n.offsetParent && n.getBoundingClientRect().height < 20).map((n) => n.outerHTML.slice(0, 60)));
  expect(small.length === 0, `too small to touch: ${small}`);
  await page.screenshot({ path: join(shots, 'phone-dark.png') });
  await page.waitForFunction(() => document.querySelectorAll('#plan tbody tr').length > 0, null, { timeout: 60000 });
  await page.screenshot({ path: join(shots, 'phone-dark-whole.png'), fullPage: true });
  await page.close();
}
await browser.close();
console.log(JSON.stringify({ failures, measures }));
