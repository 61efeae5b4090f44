// Questions to the engine's thread, as promises; what came answered with the page is answered at once.
// Where something was chosen (a share link) its thread starts before all else (index.html has this module load by itself); else once the answers that came with the page are on the screen, from
// which compiling it would take time.
let worker = null;
const came = import('./first.js').then(({ FIRST }) => ({ run: FIRST[0][0], known: new Map(FIRST) }));
const waiting = new Map();
let last = 0;

function start() {
  worker = new Worker('worker.js', { type: 'module' });
  worker.onmessage = ({ data }) => {
    waiting.get(data.id)?.(data);
    waiting.delete(data.id);
  };
  // compiled here, while the thread starts
  WebAssembly.compileStreaming(fetch('dryfit.wasm')).then((module) => worker.postMessage({ module }), (problem) => worker.postMessage({ problem: String(problem) }));
}
if (location.hash.length > 1) start();

function ask_engine(request) {
  if (!worker) start();
  return new Promise((resolve) => {
    waiting.set(++last, resolve);
    worker.postMessage({ id: last, request });
  });
}

// Resolves when the engine says otherwise than what came with the page (a browser kept files of two releases); from then on only the engine is asked.
let differs = null, checked = false;
export const outdated = new Promise((resolve) => { differs = resolve; });
async function check(key, body) {
  checked = true;
  const reply = await ask_engine(JSON.parse(key));
  if (reply.status !== 0 || reply.body === body) return;
  (await came).known.clear();
  differs();
}

// request: as include/dryfit/dryfit.h documents it. Gives {status, body, ms}; body is the bytes that the command line prints. No ms: it came with the page.
export async function ask(request) {
  const key = JSON.stringify(request), { run, known } = await came, answer = known.get(key);
  if (!answer) return ask_engine(request);
  if (!checked && key === run) setTimeout(check, 0, key, answer.body);  // the engine answers it too: it is warm for the next by then
  return answer;
}

// While one question is being answered only the latest of those that follow is kept; the ones it replaced give null. newest: none follows.
export function latest() {
  let busy = false, next = null;
  return async function put(request) {
    if (busy) {
      next?.resolve(null);
      return new Promise((resolve) => { next = { request, resolve }; });
    }
    busy = true;
    const answer = await ask(request);
    busy = false;
    const following = next;
    next = null;
    if (following) put(following.request).then(following.resolve);
    return { ...answer, newest: following === null };
  };
}
