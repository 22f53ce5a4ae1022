// The columns of the list of instances: what each shows of one, and what it is sorted by.

import { el, foreign, setAttribute, setText, shown } from './dom.js';
import { ABSENT, bytes, bytesPerSecond, cores, count, duration, ratio } from './format.js';
import { t } from './i18n.js';
import { link } from './route.js';
import { Spark } from './spark.js';

/** Words for a type of instance. */
export function typeWords(type) {
  if (type === 'container') return t('type.container');
  if (type === 'virtual-machine') return t('type.vm');
  return shown(type);
}

/** Words for the worst of an instance's pressures. */
const PRESSURES = {
  pressure_cpu: 'pressure.cpu',
  pressure_memory: 'pressure.memory',
  pressure_io: 'pressure.io',
};

/** A figure's text in a cell, with a word for those that are not known. */
function figure(text) {
  const node = el('span', { class: 'figure' }, text);
  let last = text;
  return (next = last) => {
    if (next === last) return node;
    node.textContent = next;
    if (next === ABSENT || last === ABSENT) {
      setAttribute(node, 'title', next === ABSENT ? t('absent') : null);
      node.classList.toggle('absent', next === ABSENT);
    }
    last = next;
    return node;
  };
}

/** A column that shows one figure and nothing else. */
function plain(write) {
  return (cell) => {
    const show = figure('');
    cell.append(show());
    return (instance, context) => { show(write(instance, context)); };
  };
}

/** A column of a word that others chose, or that does not change. */
function word(read) {
  return (cell, instance, context) => cell.append(foreign(read(instance, context)));
}

/** Two rates, one above the other, with a line each. */
function pair(first, second, firstWord, secondWord) {
  return (cell) => {
    const one = figure('');
    const two = figure('');
    const spark = new Spark('first', 'second');
    const arrow = (key, name) => el('span', { class: `arrow ${name}` },
      el('span', { 'aria-hidden': 'true' }, name === 'first' ? '↓' : '↑'), el('span', { class: 'aside' }, t(key)));
    cell.append(el('div', { class: 'pair' },
      el('div', {}, arrow(firstWord, 'first'), one()), el('div', {}, arrow(secondWord, 'second'), two())), spark.element);
    return (instance, context, isNear) => {
      one(bytesPerSecond(instance.figures[first]));
      two(bytesPerSecond(instance.figures[second]));
      if (isNear) spark.draw(4000, instance.lines[first], instance.lines[second]);
    };
  };
}

function sum(...values) {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : known.reduce((all, value) => all + value, 0);
}

/**
 * The columns in their order: `build` fills a cell and may give what updates it, `value` is what the column is sorted by, `first` the
 * direction that a first click sorts in.
 */
export const COLUMNS = [
  {
    id: 'name', label: 'column.name', first: 'ascending', value: ({ told }) => told.name,
    build(cell, { told }, context) {
      const address = link('instance', [told.project, told.name], { target: context.target });
      const mark = el('span', { class: 'mark', hidden: true }, t('unreadable'));
      const name = foreign(told.name || ABSENT);
      const second = el('span', { class: 'second-line' }, `${typeWords(told.type)} · `, foreign(told.runtime), ' · ', foreign(told.project));
      cell.append(el('a', { href: address, class: 'name' }, name), mark, second);
      return (instance) => { mark.hidden = instance.told.readable !== false; };
    },
  },
  { id: 'project', label: 'column.project', first: 'ascending', value: ({ told }) => told.project, build: word(({ told }) => told.project) },
  { id: 'type', label: 'column.type', first: 'ascending', value: ({ told }) => told.type, build: word(({ told }) => typeWords(told.type)) },
  { id: 'runtime', label: 'column.runtime', first: 'ascending', value: ({ told }) => told.runtime, build: word(({ told }) => told.runtime) },
  {
    id: 'location', label: 'column.location', first: 'ascending', cluster: true, value: ({ told }) => told.location,
    build: word(({ told }) => told.location),
  },
  {
    id: 'cpu', label: 'column.cpu', title: 'column.cpu.title', first: 'descending', number: true,
    value: ({ figures }) => figures.cpu,
    build(cell) {
      const used = figure('');
      const spark = new Spark('first');
      cell.append(used(), spark.element);
      return (instance, context, isNear) => {
        used(cores(instance.figures.cpu));
        if (isNear) spark.draw(0.02, instance.lines.cpu);
      };
    },
  },
  {
    id: 'memory', label: 'column.memory', title: 'column.memory.title', first: 'descending', number: true,
    value: ({ figures }) => figures.memory,
    build(cell) {
      const used = figure('');
      const of = el('span', { class: 'of' });
      const filled = el('span', { class: 'bar-filled' });
      const bar = el('span', { class: 'bar', 'aria-hidden': 'true', hidden: true }, filled);
      const spark = new Spark('first');
      cell.append(el('div', { class: 'memory' }, el('div', {}, used(), of), bar), spark.element);
      return ({ figures, lines }, context, isNear) => {
        const { memory, memory_limit: limit } = figures;
        const share = limit > 0 && memory !== undefined ? Math.min(1, memory / limit) : null;
        used(bytes(memory));
        setText(of, limit > 0 ? t('of', { limit: bytes(limit, 0) }) : '');
        if (bar.hidden !== (share === null)) bar.hidden = share === null;
        const width = `${((share ?? 0) * 100).toFixed(1)}%`;
        if (filled.style.width !== width) filled.style.width = width;
        setAttribute(bar, 'data-level', level(share ?? 0, 0.8, 0.95));
        if (isNear) spark.draw(1, lines.memory);
      };
    },
  },
  {
    id: 'disk', label: 'column.disk', title: 'column.disk.title', first: 'descending', number: true,
    value: ({ figures }) => sum(figures.disk_read, figures.disk_written),
    build: pair('disk_read', 'disk_written', 'read', 'written'),
  },
  {
    id: 'network', label: 'column.network', title: 'column.network.title', first: 'descending', number: true,
    value: ({ figures }) => sum(figures.network_received, figures.network_sent),
    build: pair('network_received', 'network_sent', 'received', 'sent'),
  },
  {
    id: 'processes', label: 'column.processes', first: 'descending', number: true, value: ({ figures }) => figures.processes,
    build: plain(({ figures }) => count(figures.processes)),
  },
  {
    id: 'uptime', label: 'column.uptime', first: 'descending', number: true,
    value: (instance, { now }) => instance.uptime(now), build: plain((instance, { now }) => duration(instance.uptime(now))),
  },
  {
    id: 'pressure', label: 'column.pressure', title: 'column.pressure.title', first: 'descending', number: true,
    value: (instance) => instance.pressure()?.value,
    build(cell) {
      const show = figure('');
      const which = el('span', { class: 'of' });
      cell.append(show(), which);
      return (instance) => {
        const worst = instance.pressure();
        show(ratio(worst?.value));
        setText(which, worst && worst.value >= 0.005 ? t(PRESSURES[worst.name]) : '');
        setAttribute(cell, 'data-level', level(worst?.value ?? 0, 0.2, 0.5));
      };
    },
  },
];

function level(value, warn, bad) {
  if (value >= bad) return 'bad';
  return value >= warn ? 'warn' : 'fine';
}

/** How two instances compare by a column; those that have no such figure come last, whichever the direction. */
export function comparison(column, direction, context) {
  const sign = direction === 'descending' ? -1 : 1;
  const collator = new Intl.Collator(undefined, { numeric: true });
  return (a, b) => {
    const [one, two] = [column.value(a, context), column.value(b, context)];
    let order = 0;
    if (one === undefined || two === undefined) order = (one === undefined) - (two === undefined);
    else if (typeof one === 'number') order = sign * (one - two);
    else order = sign * collator.compare(one, two);
    return order || collator.compare(a.told.name, b.told.name) || collator.compare(a.told.project, b.told.project);
  };
}
