// The engine in its own thread: dryfit.wasm behind one message. {id, request} in; {id, status, body, ms} out.
const encoder = new TextEncoder();
const decoder = new TextDecoder();

// The engine opens nothing: what its C library could ask of a system is answered with "no".
function imports(module, memory) {
  const out = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    let call = () => 52;  // ENOSYS
    if (name === 'proc_exit') call = (code) => { throw new Error(`the engine ended with ${code}`); };
    if (name === 'environ_sizes_get') call = (count, size) => { new DataView(memory()).setUint32(count, 0, true); new DataView(memory()).setUint32(size, 0, true); return 0; };
    if (name === 'environ_get') call = () => 0;
    (out[from] ??= {})[name] = call;
  }
  return out;
}

export async function load(module) {
  let exports = null;
  exports = (await WebAssembly.instantiate(module, imports(module, () => exports.memory.buffer))).exports;
  exports._initialize?.();
  return (request) => {
    const bytes = encoder.encode(JSON.stringify(request));
    const at = exports.malloc(bytes.length + 1);
    const status = exports.malloc(4);
    new Uint8Array(exports.memory.buffer, at, bytes.length).set(bytes);
    const reply = exports.dryfit_call(at, bytes.length, status);
    const memory = new Uint8Array(exports.memory.buffer);  // anew: it may have grown
    const body = reply === 0 ? '' : decoder.decode(memory.subarray(reply, memory.indexOf(0, reply)));
    const result = { status: new DataView(exports.memory.buffer).getInt32(status, true), body };
    exports.dryfit_free(reply);
    exports.free(at);
    exports.free(status);
    return result;
  };
}

if (typeof WorkerGlobalScope !== 'undefined') {
  let module = null, ready = null;
  const engine = new Promise((resolve, reject) => { ready = { resolve, reject }; });
  let call = engine;
  engine.catch(() => {});  // said with the first question
  self.onmessage = async ({ data }) => {
    if (data.problem) return ready.reject(new Error(data.problem));
    if (data.module) {
      module = data.module;
      return ready.resolve(load(module));
    }
    const { id, request } = data;
    try {
      const engine_call = await call;
      const start = performance.now();
      self.postMessage({ id, ...engine_call(request), ms: performance.now() - start });
    } catch (problem) {
      if (module) call = load(module);  // a stopped engine is of no more use
      self.postMessage({ id, status: 70, body: JSON.stringify({ error: { code: 'engine', message: String(problem?.message ?? problem), hint: 'reload the page', where: '' } }), ms: 0 });
    }
  };
}
