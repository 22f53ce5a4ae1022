// The views of the cluster's members and of the warnings: plain tables.

import { ask } from './api.js';
import { el, foreign, said, setText, shown } from './dom.js';
import { ABSENT, ago, count, moment, parseTime } from './format.js';
import { t } from './i18n.js';
import { link } from './route.js';

/** A table of rows of cells; each cell is a node or text, each column a key of words. */
function table(label, columns, rows) {
  return el('table', { class: 'plain cards', 'aria-label': label },
    el('thead', {}, el('tr', {}, ...columns.map((column) => el('th', { scope: 'col' }, t(column))))),
    el('tbody', {}, ...rows.map((cells) => el('tr', {}, ...cells.map((cell, index) =>
      el(index === 0 ? 'th' : 'td', { scope: index === 0 ? 'row' : null, 'data-label': index === 0 ? null : t(columns[index]) }, cell))))));
}

function when(text) {
  const time = parseTime(text);
  if (time === undefined) return el('span', { class: 'absent', title: t('absent') }, ABSENT);
  return el('time', { datetime: new Date(time * 1000).toISOString(), title: moment(time) }, ago(time));
}

/** A view that asks for a list itself and shows it anew with each answer. */
class ListView {
  constructor(title) {
    this.title = t(title);
    this.head = el('h1', { tabindex: '-1' }, this.title);
    this.note = el('p', { class: 'count', role: 'status' });
    this.box = el('div', {}, el('p', { class: 'empty' }, t('loading')));
    this.element = el('div', { class: 'view-list' }, this.head, this.note, this.box);
  }

  /** Shows rows, unless they are the ones that are there; `empty` is said where there are none. */
  show(columns, rows, empty) {
    if (rows.length === 0) this.box.replaceChildren(el('p', { class: 'empty' }, empty));
    else this.replace(table(this.title, columns, rows));
  }

  /** Says that there is nothing to be seen for this visitor. */
  refuse() {
    setText(this.note, '');
    this.box.replaceChildren(el('p', { class: 'empty' }, t('refused')));
  }

  replace(next) {
    // Who has the keyboard in the list keeps it.
    const focused = this.box.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
    this.box.replaceChildren(next);
    if (focused) [...this.box.querySelectorAll('a')].find((node) => node.getAttribute('href') === focused)?.focus();
  }
}

const STATUSES = { Online: 'member.online', Offline: 'member.offline' };

/** The members of the cluster. */
export class ClusterView extends ListView {
  constructor() {
    super('nav.cluster');
  }

  async ask(signal) {
    const cluster = await ask(['cluster'], {}, signal);
    const members = cluster.enabled ? await ask(['cluster', 'members'], { recursion: 1 }, signal) : [];
    return { cluster, members };
  }

  answer({ cluster, members }) {
    setText(this.note, cluster.enabled ? t('cluster.members', { name: shown(cluster.cluster_name || cluster.server_name), n: count(members.length) }) : '');
    const rows = members.map((member) => {
      const isThis = member.server_name === cluster.server_name;
      const status = t(STATUSES[member.status] ?? 'member.unknown');
      const state = el('span', { class: `pill ${member.status === 'Online' ? 'fine' : member.status === 'Offline' ? 'bad' : 'warn'}` }, status);
      return [
        el('span', {}, el('a', { href: link('instances', [], { target: isThis ? '' : member.server_name }) }, foreign(member.server_name)),
          isThis ? ` ${t('member.this')}` : null),
        el('span', {}, state, member.status === 'Online' ? null : el('span', { class: 'of' }, ` ${said(member.message)}`)),
        when(member.last_seen_at),
        count(member.instances),
        foreign(member.version || ABSENT),
        foreign(member.url || ABSENT),
      ];
    });
    this.show(['member.name', 'member.status', 'member.seen', 'member.instances', 'member.version', 'member.address'], rows,
      cluster.enabled ? t('cluster.empty') : t('cluster.none'));
  }
}

const SEVERITIES = { high: ['severity.high', 'bad', 0], moderate: ['severity.moderate', 'warn', 1], low: ['severity.low', 'fine', 2] };
const WARNING_STATUSES = { new: 'warning.new', acknowledged: 'warning.acknowledged', resolved: 'warning.resolved' };

/** How many of these warnings are new. */
export function newOnes(warnings) {
  return warnings.filter(({ status }) => status === 'new').length;
}

/** What is wrong. */
export class WarningsView extends ListView {
  constructor({ target, counted }) {
    super('nav.warnings');
    Object.assign(this, { target, counted });
  }

  ask(signal) {
    return ask(['warnings'], { recursion: 1, target: this.target }, signal);
  }

  answer(warnings) {
    this.counted(newOnes(warnings));
    setText(this.note, t('warning.count', { n: count(warnings.length), new: count(newOnes(warnings)) }));
    const rank = ({ status, severity }) => (status === 'resolved' ? 10 : 0) + (SEVERITIES[severity]?.[2] ?? 3);
    const sorted = [...warnings].sort((a, b) => rank(a) - rank(b) || (a.last_seen_at < b.last_seen_at ? 1 : -1));
    const rows = sorted.map((warning) => {
      const [words, level] = SEVERITIES[warning.severity] ?? [null, 'warn'];
      const status = WARNING_STATUSES[warning.status];
      return [
        el('span', { class: `pill ${warning.status === 'resolved' ? 'none' : level}` }, words ? t(words) : shown(warning.severity)),
        el('div', { class: 'message' }, el('strong', {}, foreign(warning.type)), el('span', {}, said(warning.last_message))),
        status ? t(status) : shown(warning.status),
        foreign([warning.location === 'none' ? '' : warning.location, warning.project].filter(Boolean).join(' · ') || ABSENT),
        when(warning.first_seen_at), when(warning.last_seen_at), count(warning.count),
      ];
    });
    this.show(['warning.severity', 'warning.what', 'warning.status', 'warning.where', 'warning.first', 'warning.last', 'warning.times'], rows,
      t('warning.none'));
  }
}
