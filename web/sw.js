// Keeps the page for when there is no network: the newest from the server where it answers, else what was kept.
const FILES = ['./', 'index.html', 'style.css', 'app.js', 'engine.js', 'worker.js', 'questions.js', 'first.js', 'format.js', 'chart.js', 'dryfit.wasm'];
const CACHE = 'dryfit';

self.addEventListener('install', (event) => event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES.map((file) => new Request(file, { cache: 'force-cache' })))).then(() => self.skipWaiting())));
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  if (event.request.method !== 'GET') return;
  event.respondWith((async () => {
    const cache = await caches.open(CACHE);
    try {
      const fresh = await fetch(event.request);
      if (fresh.ok) cache.put(event.request, fresh.clone());
      return fresh;
    } catch {
      return (await cache.match(event.request, { ignoreSearch: true })) ?? Response.error();
    }
  })());
});
