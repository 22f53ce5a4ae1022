// Figures as people read them, in the visitor's language. What is not known is "–", never 0.

import { language, t } from './i18n.js';

/** What stands for a figure that is not known. */
export const ABSENT = '–';

let formats = new Map();
let formatsOf = null;

/** A format of the language of now, made once; `make` makes it. */
function format(key, make) {
  const tag = language();
  if (formatsOf !== tag) formats = new Map();
  formatsOf = tag;
  let found = formats.get(key);
  if (!found) formats.set(key, (found = make(tag)));
  return found;
}

function plain(value, digits, least = digits) {
  const number = format(digits * 10 + least, (tag) => new Intl.NumberFormat(tag, { maximumFractionDigits: digits, minimumFractionDigits: least }));
  return number.format(value);
}

function known(write) {
  return (value, least) => (typeof value === 'number' && Number.isFinite(value) ? write(value, least) : ABSENT);
}

function scaled(value, base, units, after, least) {
  let step = 0;
  let rest = Math.abs(value);
  // 999.6 would be written as 1000, which is one of the next unit.
  while (rest >= base - 0.5 && step < units.length - 1) {
    rest /= base;
    step += 1;
  }
  const digits = step === 0 || rest >= 99.95 ? 0 : rest >= 9.995 ? 1 : 2;
  return `${plain(value < 0 ? -rest : rest, digits, least ?? digits)} ${units[step]}${after}`;
}

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const DECIMAL = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** Bytes, in powers of 1024. */
export const bytes = known((value, least) => scaled(value, 1024, BINARY, '', least));
/** Bytes a second, in powers of 1000. */
export const bytesPerSecond = known((value, least) => scaled(value, 1000, DECIMAL, '/s', least));
/** Events a second. */
export const perSecond = known((value, least) => {
  const digits = value >= 99.95 || value === 0 ? 0 : value >= 0.995 ? 1 : 2;
  return `${plain(value, digits, least ?? digits)} /s`;
});
/** CPUs. */
export const cores = known((value, least) => {
  const digits = value >= 9.995 ? 1 : value >= 0.0995 || value < 0.0005 ? 2 : 3;
  return plain(value, digits, least ?? digits);
});
/** A plain number. */
export const count = known((value) => plain(value, 0));
/** A share of 1, as percent. */
export const ratio = known((value) => {
  const digits = value >= 0.0995 || value === 0 ? 0 : value >= 0.00995 ? 1 : 2;
  return format(`percent ${digits}`, (tag) => new Intl.NumberFormat(tag, {
    style: 'percent', maximumFractionDigits: digits, minimumFractionDigits: digits,
  })).format(value);
});

/** How a figure is written, by its unit. A second argument of 0 leaves out zeros at the end, as limits and axes have it. */
export const WRITERS = { cores, bytes, bytesPerSecond, perSecond, count, ratio };

/** Seconds as the two largest units: `3 d 4 h`. */
export const duration = known((seconds) => {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [
    [Math.floor(whole / 86400), 'unit.days'],
    [Math.floor(whole / 3600) % 24, 'unit.hours'],
    [Math.floor(whole / 60) % 60, 'unit.minutes'],
    [whole % 60, 'unit.seconds'],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  const some = first < 0 ? parts.slice(3) : parts.slice(first, first + 2);
  return some.map(([value, unit]) => t(unit, { n: plain(value, 0) })).join(' ');
});

function dated(key, options) {
  return known((seconds) => format(key, (tag) => new Intl.DateTimeFormat(tag, options)).format(seconds * 1000));
}

/** A moment of today, seconds since the epoch: `06:05:01`. */
export const clock = dated('clock', { timeStyle: 'medium', hourCycle: 'h23' });
/** The same without seconds, for axes. */
export const clockShort = dated('short clock', { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
/** A moment with its day. */
export const moment = dated('moment', { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' });

/** Seconds since the epoch of a time in RFC 3339; `undefined` for none, and for Go's zero time. */
export function parseTime(text) {
  const time = Date.parse(text ?? '') / 1000;
  return Number.isFinite(time) && time > 0 ? time : undefined;
}

/** How long ago, in words: `5 minutes ago`. */
export const ago = known((seconds) => {
  const past = seconds - Date.now() / 1000;
  const words = format('ago', (tag) => new Intl.RelativeTimeFormat(tag, { numeric: 'auto' }));
  const size = Math.abs(past);
  if (size < 60) return words.format(Math.round(past), 'second');
  if (size < 3600) return words.format(Math.round(past / 60), 'minute');
  if (size < 86400) return words.format(Math.round(past / 3600), 'hour');
  return words.format(Math.round(past / 86400), 'day');
});
