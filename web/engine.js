// Questions to the engine's thread, as promises.
const worker = new Worker('worker.js', { type: 'module' });
// compiled here, while the thread starts
WebAssembly.compileStreaming(fetch('dryfit.wasm')).then((module) => worker.postMessage({ module }), (problem) => worker.postMessage({ problem: String(problem) }));
const waiting = new Map();
let last = 0;

worker.onmessage = ({ data }) => {
  waiting.get(data.id)?.(data);
  waiting.delete(data.id);
};

// request: as include/dryfit/dryfit.h documents it. Gives {status, body, ms}; body is the bytes that the command line prints.
export function ask(request) {
  return new Promise((resolve) => {
    waiting.set(++last, resolve);
    worker.postMessage({ id: last, request });
  });
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
