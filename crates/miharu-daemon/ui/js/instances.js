// The view of all instances: totals, filters that are part of the address, and the table.

import { COLUMNS, typeWords } from './columns.js';
import { el, setAttribute, setText, shown } from './dom.js';
import { bytes, bytesPerSecond, cores, count } from './format.js';
import { t } from './i18n.js';
import { here, link, rename } from './route.js';
import { Table } from './table.js';

/** What the list is sorted by unless somebody chooses. */
const SORT = 'cpu';

/** The order of the last list, for the way from one instance to the next. */
let lastOrder = [];
export const order = () => lastOrder;

/** The query of the last list, for the way back. */
let lastQuery = {};
export const back = () => link('instances', [], lastQuery);

export class InstancesView {
  constructor({ isCluster, members, target }) {
    this.title = t('nav.instances');
    this.target = target;
    this.query = here().query;
    this.table = new Table({ isCluster, sorted: (id, direction) => this.change({ sort: `${id}:${direction}` }) });
    this.count = el('p', { class: 'count', role: 'status' });
    this.totals = new Totals();
    this.filters = new Filters({ query: this.query, members, target, changed: (change) => this.change(change) });
    this.empty = el('p', { class: 'empty' }, t('loading'));
    this.table.element.hidden = true;
    this.element = el('div', { class: 'view-instances' },
      el('h1', { tabindex: '-1', class: 'aside' }, t('nav.instances')),
      this.totals.element, el('div', { class: 'above-table' }, this.filters.element, this.count), this.table.element, this.empty);
  }

  /** Changes the filters or the order, which the address then says. */
  change(change) {
    for (const [name, value] of Object.entries(change)) {
      if (value) this.query.set(name, value);
      else this.query.delete(name);
    }
    const address = link('instances', [], Object.fromEntries(this.query));
    if ('target' in change) location.hash = address;
    else rename(address);
    if (this.usage) this.update(this.usage);
  }

  update(usage) {
    this.usage = usage;
    lastQuery = Object.fromEntries(this.query);
    const all = [...usage.instances.values()];
    this.filters.offer(all);
    const chosen = all.filter(this.filters.test(this.query));
    const [sort, direction] = sorting(this.query.get('sort'));
    this.filters.sorted(sort, direction);
    const context = { now: usage.time, target: this.target };
    lastOrder = this.table.show(chosen, { sort, direction, context });
    this.totals.update(chosen, usage.server);
    const unread = chosen.filter(({ told }) => told.readable === false).length;
    const words = chosen.length === all.length ? t('count.all', { all: count(all.length) })
      : t('count.some', { some: count(chosen.length), all: count(all.length) });
    setText(this.count, unread > 0 ? `${words} · ${t('count.unreadable', { n: count(unread) })}` : words);
    this.table.element.hidden = chosen.length === 0;
    this.empty.hidden = chosen.length > 0;
    setText(this.empty, all.length === 0 ? t('empty.none') : t('empty.filtered'));
  }

  destroy() {
    this.table.destroy();
  }

  /** The keys of this view. */
  key(key) {
    if (key === '/') this.filters.focus();
    else if (key === 'ArrowDown') this.table.focus();
    else return false;
    return true;
  }
}

function sorting(text) {
  const [id, direction] = (text ?? '').split(':');
  const column = COLUMNS.find((one) => one.id === id);
  if (!column) return [SORT, 'descending'];
  return [id, ['ascending', 'descending'].includes(direction) ? direction : column.first];
}

/** What all that are shown use together. */
class Totals {
  constructor() {
    this.values = {};
    this.element = el('dl', { class: 'totals', 'aria-label': t('totals') });
    for (const [id, label] of [['cpu', 'column.cpu'], ['memory', 'column.memory'], ['disk', 'column.disk'], ['network', 'column.network']]) {
      const [value, of] = [el('span', { class: 'total-value' }), el('span', { class: 'of' })];
      this.values[id] = { value, of };
      this.element.append(el('div', { class: 'total' }, el('dt', {}, t(label)), el('dd', {}, value, of)));
    }
  }

  update(instances, server) {
    const sum = (...names) => {
      let all;
      for (const { figures } of instances) for (const name of names) if (figures[name] !== undefined) all = (all ?? 0) + figures[name];
      return all;
    };
    const show = (id, value, of = '') => {
      setText(this.values[id].value, value);
      setText(this.values[id].of, of);
    };
    show('cpu', cores(sum('cpu')), server.host_cpus ? t('of', { limit: count(server.host_cpus) }) : '');
    show('memory', bytes(sum('memory')), server.host_memory ? t('of', { limit: bytes(server.host_memory, 0) }) : '');
    show('disk', bytesPerSecond(sum('disk_read', 'disk_written')));
    show('network', bytesPerSecond(sum('network_received', 'network_sent')));
  }
}

/** The row of filters. */
class Filters {
  constructor({ query, members, target, changed }) {
    this.changed = changed;
    this.name = el('input', {
      type: 'search', id: 'filter', autocomplete: 'off', spellcheck: 'false', maxlength: '200', placeholder: t('filter.placeholder'),
      'aria-keyshortcuts': '/', oninput: () => changed({ q: this.name.value }),
    });
    this.name.value = query.get('q') ?? '';
    const choice = (name) => el('select', { onchange: (event) => changed({ [name]: event.target.value }) });
    this.choices = {
      project: { node: choice('project'), all: t('filter.project.all'), words: shown },
      type: { node: choice('type'), all: t('filter.type.all'), words: typeWords },
      runtime: { node: choice('runtime'), all: t('filter.runtime.all'), words: shown },
    };
    this.wanted = query;
    this.sort = el('select', { onchange: () => changed({ sort: this.sort.value }) });
    for (const column of COLUMNS.filter(({ cluster }) => !cluster || members.length > 0)) {
      const other = column.first === 'ascending' ? 'descending' : 'ascending';
      for (const direction of [column.first, other]) {
        const arrow = direction === 'ascending' ? '↑' : '↓';
        this.sort.append(el('option', { value: `${column.id}:${direction}` }, `${t(column.label)} ${arrow}`));
      }
    }
    const labelled = (label, node, name) => el('label', { class: name }, el('span', {}, t(label)), node);
    this.element = el('search', { class: 'filters', 'aria-label': t('filter.label') },
      labelled('filter.name', this.name, 'filter-name'),
      members.length > 0 ? labelled('filter.member', memberChoice(members, target, changed), 'filter-choice') : null,
      labelled('column.project', this.choices.project.node, 'filter-choice'),
      labelled('column.type', this.choices.type.node, 'filter-choice'),
      labelled('column.runtime', this.choices.runtime.node, 'filter-choice'),
      labelled('filter.sort', this.sort, 'filter-sort'), this.more(),
      this.clear = el('button', { type: 'button', class: 'button', onclick: () => this.reset() }, t('filter.clear')));
    this.offer([]);
  }

  /** On a phone the less used ones are folded away. */
  more() {
    const node = el('button', {
      type: 'button', class: 'button filters-more', 'aria-expanded': 'false',
      onclick: () => node.setAttribute('aria-expanded', String(this.element.classList.toggle('open'))),
    }, t('filter.label'));
    return node;
  }

  /** Offers the values that there are, and the one that was asked for though nothing has it. */
  offer(instances) {
    const found = { project: new Set(), type: new Set(), runtime: new Set() };
    for (const { told } of instances) {
      for (const name of Object.keys(found)) found[name].add(told[name]);
    }
    for (const [name, { node, all, words }] of Object.entries(this.choices)) {
      const chosen = this.wanted.get(name) ?? '';
      if (chosen) found[name].add(chosen);
      const values = [...found[name]].sort();
      const key = JSON.stringify(values);
      if (node.dataset.values !== key) {
        node.dataset.values = key;
        node.replaceChildren(el('option', { value: '' }, all), ...values.map((value) => el('option', { value }, words(value))));
      }
      if (node.value !== chosen) node.value = chosen;
    }
    this.clear.hidden = !['q', 'project', 'type', 'runtime'].some((name) => this.wanted.get(name));
  }

  /** Which instances a query asks for. */
  test(query) {
    const text = (query.get('q') ?? '').toLowerCase();
    const exact = ['project', 'type', 'runtime'].filter((name) => query.get(name));
    return ({ told }) => (!text || told.name.toLowerCase().includes(text)) && exact.every((name) => told[name] === query.get(name));
  }

  sorted(id, direction) {
    const value = `${id}:${direction}`;
    if (this.sort.value !== value) this.sort.value = value;
    setAttribute(this.sort, 'data-sort', value);
  }

  reset() {
    this.name.value = '';
    this.changed({ q: '', project: '', type: '', runtime: '' });
    this.name.focus();
  }

  focus() {
    this.name.focus();
    this.name.select();
  }
}

function memberChoice(members, target, changed) {
  const node = el('select', { onchange: () => changed({ target: node.value }) });
  node.append(el('option', { value: '' }, t('filter.member.this')), ...members.map((name) => el('option', { value: name }, shown(name))));
  node.value = target ?? '';
  return node;
}
