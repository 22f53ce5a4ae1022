// The table of instances. Its rows stay and are updated cell by cell, so that 500 of them cost a few milliseconds a refresh.

import { el, setAttribute } from './dom.js';
import { t } from './i18n.js';
import { COLUMNS, comparison } from './columns.js';

export class Table {
  /** `sorted(id, direction)` is told of a click on a column's heading. */
  constructor({ sorted, isCluster }) {
    this.rows = new Map();
    this.columns = COLUMNS.filter((column) => !column.cluster || isCluster);
    this.body = el('tbody', { role: 'rowgroup' });
    this.headings = new Map(this.columns.map((column) => [column.id, heading(column, sorted)]));
    this.element = el('table', { class: `instances${isCluster ? ' with-location' : ''}`, role: 'table', 'aria-label': t('nav.instances') },
      el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...this.headings.values())), this.body);
    this.near = new IntersectionObserver((entries) => this.moved(entries), { rootMargin: '400px 0px' });
    this.body.addEventListener('keydown', (event) => this.key(event));
  }

  /** Shows these instances, in this order. */
  show(instances, { sort, direction, context }) {
    this.context = context;
    for (const [id, node] of this.headings) setAttribute(node, 'aria-sort', id === sort ? direction : null);
    const column = this.columns.find(({ id }) => id === sort) ?? this.columns[0];
    // Who walks through the rows by keyboard keeps their order, as a row that jumps away cannot be followed.
    const isHeld = this.body.contains(document.activeElement) && this.sort === `${sort} ${direction}`;
    this.sort = `${sort} ${direction}`;
    const compare = comparison(column, direction, context);
    const ranks = isHeld ? new Map([...this.rows.keys()].map((key, rank) => [key, rank])) : null;
    const order = [...instances].sort((a, b) => {
      const [one, two] = [ranks?.get(a.key), ranks?.get(b.key)];
      return one !== undefined && two !== undefined ? one - two : compare(a, b);
    });
    this.place(order);
    for (const row of this.rows.values()) row.update(context);
    return order;
  }

  /** Puts rows in order, makes those that lack and takes away those that are gone. */
  place(order) {
    const before = this.rows;
    this.rows = new Map();
    for (const instance of order) {
      let row = before.get(instance.key);
      // A row says what does not change once only: an instance of the same name but another kind has another row.
      if (row && !row.isOf(instance)) {
        this.drop(row);
        row = undefined;
      }
      row ??= new Row(instance, this);
      row.instance = instance;
      this.rows.set(instance.key, row);
    }
    for (const [key, row] of before) if (this.rows.get(key) !== row) this.drop(row);
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    let next = this.body.firstElementChild;
    for (const { element } of this.rows.values()) {
      // One that has sunk in the order waits for its turn where it is, so that not all of the others have to move past it.
      if (next !== element && next?.nextElementSibling === element) next = element;
      if (next === element) next = element.nextElementSibling;
      else this.body.insertBefore(element, next);
    }
    // A row that is moved loses the focus.
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  }

  drop(row) {
    this.near.unobserve(row.element);
    row.element.remove();
  }

  moved(entries) {
    for (const { target, isIntersecting } of entries) {
      const row = target.row;
      row.isNear = isIntersecting;
      if (isIntersecting) row.update(this.context);
    }
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const isEnd = event.key === 'Home' || event.key === 'End';
    if ((step === undefined && !isEnd) || event.ctrlKey || event.metaKey || event.altKey) return;
    const links = [...this.body.querySelectorAll('a.name')];
    const at = links.indexOf(document.activeElement);
    const wanted = isEnd ? (event.key === 'Home' ? 0 : links.length - 1) : at + step;
    if (at < 0 || !links[wanted]) return;
    event.preventDefault();
    links[wanted].focus();
    links[wanted].scrollIntoView({ block: 'nearest' });
  }

  /** Moves the keyboard to the first row that is in sight. */
  focus() {
    const top = this.body.previousElementSibling.getBoundingClientRect().bottom;
    const rows = [...this.rows.values()].map(({ element }) => element);
    const row = rows.find((element) => element.getBoundingClientRect().top >= top - 1) ?? rows[0];
    row?.querySelector('a.name').focus();
  }

  destroy() {
    this.near.disconnect();
  }
}

function heading(column, sorted) {
  const node = el('th', { scope: 'col', role: 'columnheader', class: `c-${column.id}` },
    el('button', {
      type: 'button', class: 'sort', title: column.title ? t(column.title) : null,
      onclick: () => {
        const now = node.getAttribute('aria-sort');
        const other = now === 'ascending' ? 'descending' : 'ascending';
        sorted(column.id, now ? other : column.first);
      },
    }, t(column.label)));
  return node;
}

class Row {
  constructor(instance, table) {
    this.instance = instance;
    this.told = instance.told;
    this.isNear = false;
    this.updates = [];
    const cells = table.columns.map((column) => {
      const isName = column.id === 'name';
      const cell = el(isName ? 'th' : 'td', {
        scope: isName ? 'row' : null, role: isName ? 'rowheader' : 'cell', class: `c-${column.id}${column.number ? ' number' : ''}`,
        'data-label': isName ? null : t(column.label),
      });
      const update = column.build(cell, instance, table.context);
      if (update) this.updates.push(update);
      return cell;
    });
    this.element = el('tr', { role: 'row' }, ...cells);
    this.element.row = this;
    // The whole row leads to the instance, for who has a mouse.
    this.element.addEventListener('click', (event) => {
      if (event.target.closest('a, button') || String(getSelection())) return;
      this.element.querySelector('a.name').click();
    });
    table.near.observe(this.element);
  }

  isOf({ told }) {
    return ['type', 'runtime', 'location'].every((name) => told[name] === this.told[name]);
  }

  update(context) {
    for (const update of this.updates) update(this.instance, context, this.isNear);
  }
}
