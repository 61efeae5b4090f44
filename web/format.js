// Numbers as dryfit prints them: GiB and MiB, nothing else.
const KIB = 1024, MIB = KIB * 1024, GIB = MIB * 1024;

export function bytes(n) {
  if (n < 0) return `−${bytes(-n)}`;
  if (n >= GIB) return `${(n / GIB).toFixed(1)} GiB`;
  if (n >= MIB || n === 0) return `${Math.round(n / MIB)} MiB`;
  return `${Math.round(n / KIB)} KiB`;
}

// "17.5 – 23.5 GiB": the unit once where both have it.
export function between(low, high) {
  const [from, to] = [bytes(low), bytes(high)], unit = to.slice(to.indexOf(' '));
  return `${from.endsWith(unit) ? from.slice(0, -unit.length) : from} – ${to}`;
}

export function count(n) {
  if (n >= 1e9) return `${(n / 1e9).toFixed(2)} B`;
  return `${Math.round(n / 1e6)} M`;
}

// Three figures, as speeds are no better known.
export function rate(tokens_per_second) {
  const [n, unit] = tokens_per_second >= 1e6 ? [tokens_per_second / 1e6, 'M'] : tokens_per_second >= 1e3 ? [tokens_per_second / 1e3, 'k'] : [tokens_per_second, ''];
  return `${n.toPrecision(3)} ${unit} tok/s`.replace('  ', ' ');
}

export function duration(seconds) {
  const s = Math.floor(seconds), part = (unit, of) => Math.floor(s / unit) % of;
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.floor((s + 30) / 60)} min`;
  if (s < 172800) return `${part(3600, 48)} h ${String(part(60, 60)).padStart(2, '0')} min`;
  return `${Math.floor(s / 86400)} d ${part(3600, 24)} h`;
}

export const words = (name) => name.replaceAll('_', ' ');

// Steps of 1, 2 or 5 times a power of ten GiB that give at most `most` ticks.
export function ticks(top, most = 5) {
  const gib = top / GIB;
  const steps = [];
  for (let power = -3; power <= 6; ++power) for (const lead of [1, 2, 5]) steps.push(lead * 10 ** power);
  const step = steps.find((s) => gib / s <= most) ?? gib;
  const out = [];
  for (let at = 0; at <= gib + step * 1e-9; at += step) out.push({ bytes: at * GIB, text: `${Number(at.toPrecision(6))} GiB` });
  return out;
}
