// Memory over the run as a stacked picture. A function of a report and a width; the moment under the cross is app.js's.
import { bytes, ticks, words } from './format.js';

const NS = 'http://www.w3.org/2000/svg';
const LEFT = 58, RIGHT = 8, TOP = 22, BOTTOM = 26, HEIGHT = 300;

function make(name, attributes, text) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// Gives {svg, x(i), y(bytes), at(clientX): index of the nearest point}.
export function draw(report, width) {
  const { categories, points } = report.timeline;
  const usable = report.machine.usable_bytes;
  const most = Math.max(usable, report.memory.allocated.bytes) * 1.06;
  const right = width - RIGHT, bottom = HEIGHT - BOTTOM;
  const x = (i) => LEFT + (points.length < 2 ? 0 : (i / (points.length - 1)) * (right - LEFT));
  const y = (b) => bottom - (b / most) * (bottom - TOP);
  const svg = make('svg', { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, 'aria-hidden': 'true' });

  for (const tick of ticks(most)) {
    svg.append(make('line', { class: 'axis', x1: LEFT, x2: right, y1: y(tick.bytes), y2: y(tick.bytes) }));
    svg.append(make('text', { x: LEFT - 8, y: y(tick.bytes) + 4, 'text-anchor': 'end' }, tick.text));
  }
  // moments are as far apart as the thinned points: between two the picture is a step, as memory is
  const base = points.map(() => 0);
  categories.forEach((name, c) => {
    if (!points.some((p) => p.by_category[c] > 0)) return;
    const low = points.map((_, i) => `${x(i).toFixed(1)},${y(base[i]).toFixed(1)}`).reverse();
    const high = points.map((p, i) => `${x(i).toFixed(1)},${y(base[i] += p.by_category[c]).toFixed(1)}`);
    svg.append(make('polygon', { points: [...high, ...low].join(' '), style: `fill: var(--${name})` }));
  });
  let from = 0;
  for (let i = 1; i <= points.length; ++i) {
    if (i < points.length && points[i].phase === points[from].phase) continue;
    if (from > 0) svg.append(make('line', { class: 'axis', x1: x(from), x2: x(from), y1: TOP, y2: bottom + 6 }));
    const room = x(i - 1) - x(from), label = words(points[from].phase);
    if (room > label.length * 6.4) svg.append(make('text', { x: (x(from) + x(i - 1)) / 2, y: bottom + 18, 'text-anchor': 'middle' }, label));
    from = i;
  }
  svg.append(make('line', { class: 'usable', x1: LEFT, x2: right, y1: y(usable), y2: y(usable) }));
  svg.append(make('text', { class: 'usable-text', x: LEFT + 4, y: y(usable) - 6 }, `${bytes(usable)} usable`));
  const cross = make('g', {});
  const line = make('line', { class: 'cross', y1: TOP, y2: bottom });
  const dot = make('circle', { class: 'dot', r: 4.5 });
  cross.append(line, dot);
  svg.append(cross);
  return {
    svg,
    at: (px) => Math.max(0, Math.min(points.length - 1, Math.round(((px - LEFT) / (right - LEFT)) * (points.length - 1)))),
    point(i) {
      line.setAttribute('x1', x(i));
      line.setAttribute('x2', x(i));
      dot.setAttribute('cx', x(i));
      dot.setAttribute('cy', y(points[i].allocated_bytes));
    },
  };
}
