// Numbers as dryfit prints them: GiB and MiB, nothing else.
const KIB = 1024, MIB = KIB * 1024, GIB = MIB * 1024;

export function bytes(n) {
  if (Math.abs(n) >= GIB) return `${(n / GIB).toFixed(1)} GiB`;
  if (Math.abs(n) >= MIB || n === 0) return `${Math.round(n / MIB)} MiB`;
  return `${Math.round(n / KIB)} KiB`;
}

export function count(n) {
  if (n >= 1e9) return `${(n / 1e9).toFixed(2)} B`;
  return `${Math.round(n / 1e6)} M`;
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
