// The view of one instance: its facts, its figures of now, charts of the last hour that go on live, and where the figures come from.

import { ask } from './api.js';
import { CHARTS } from './figures.js';
import { typeWords } from './columns.js';
import { el, foreign, said, setText, shown } from './dom.js';
import { ABSENT, bytes, bytesPerSecond, cores, count, duration, moment } from './format.js';
import { t } from './i18n.js';
import { back, order } from './instances.js';
import { Poll } from './poll.js';
import { link } from './route.js';
import { keyOf } from './usage.js';

/** Seconds after which the history is asked for anew; until then it goes on with what each refresh brings. */
const AGAIN = 60;
/** Seconds of history that a chart shows. */
const HOUR = 3600;

/** Why there is no history, as the server says it. */
const MISSING = { off: 'history.off', full: 'history.full' };

export class InstanceView {
  constructor({ parts, target }) {
    const [project, name] = parts;
    Object.assign(this, { project, name, target });
    this.id = keyOf(project, name);
    this.title = shown(name);
    this.charts = new Map();
    this.history = null;
    this.live = [];
    this.mark = el('p', { class: 'notice', hidden: true });
    this.tiles = el('dl', { class: 'totals', 'aria-label': t('instance.now') });
    this.chartsBox = el('section', { class: 'charts', 'aria-label': t('instance.charts') }, el('p', { class: 'empty' }, t('loading')));
    this.facts = el('dl', { class: 'facts' });
    this.sources = el('div', { class: 'sources' }, el('p', { class: 'empty' }, t('loading')));
    this.before = el('a', { class: 'button', rel: 'prev', hidden: true }, `← ${t('instance.before')}`);
    this.after = el('a', { class: 'button', rel: 'next', hidden: true }, `${t('instance.after')} →`);
    this.element = el('div', { class: 'view-instance' },
      el('nav', { class: 'trail', 'aria-label': t('instance.trail') },
        el('a', { href: back() }, `‹ ${t('nav.instances')}`), el('span', { class: 'trail-ends' }, this.before, this.after)),
      el('h1', { tabindex: '-1' }, foreign(name)),
      this.subtitle = el('p', { class: 'subtitle' }), this.mark, this.tiles, this.chartsBox,
      el('section', { class: 'panel', 'aria-label': t('instance.facts') }, el('h2', {}, t('instance.facts')), this.facts),
      el('section', { class: 'panel', 'aria-label': t('instance.sources') }, el('h2', {}, t('instance.sources')), this.sources));
    // The code that draws is fetched once somebody wants a chart.
    import('./chart.js').then(({ Chart }) => {
      this.Chart = Chart;
      this.draw();
    });
    const of = (...rest) => (signal) => ask(['instances', name, ...rest], { project, target }, signal);
    const failed = (box) => (state, detail) => {
      if (state === 'failing') box.replaceChildren(el('p', { class: 'empty' }, t('failed', { why: said(detail.error.message) })));
    };
    this.polls = [
      new Poll({ ask: of('history'), answer: (history) => this.takeHistory(history), interval: AGAIN, state: (state, detail) => {
        if (state === 'failing' && !this.history) failed(this.chartsBox)(state, detail);
      } }),
    ];
    if (target) {
      // What is read of files is told by the member that has them.
      this.sources.replaceChildren(el('p', {}, t('sources.elsewhere', { member: shown(target) })));
      return;
    }
    this.polls.push(
      new Poll({ ask: of('state'), answer: (state) => this.takeState(state), interval: AGAIN }),
      new Poll({ ask: of('sources'), answer: (sources) => this.takeSources(sources), interval: 300, state: failed(this.sources) }));
  }

  update(usage) {
    const instance = usage.instances.get(this.id);
    this.wayOn(usage);
    this.gone = !instance;
    this.mark.hidden = Boolean(instance) && instance.told.readable !== false;
    setText(this.mark, instance ? t('instance.unreadable') : t('instance.gone'));
    if (!instance) return;
    this.told = instance.told;
    this.uptime = instance.uptime(usage.time);
    this.figures = instance.figures;
    if (this.live.at(-1)?.time !== usage.time) this.live.push({ time: usage.time, figures: instance.figures });
    this.live = this.live.filter(({ time }) => time > usage.time - HOUR);
    this.subtitle.replaceChildren(`${typeWords(this.told.type)} · `, foreign(this.told.runtime), ` · ${t('column.project')} `, foreign(this.told.project));
    this.now();
    this.factsNow();
    this.draw();
  }

  /** Links to the ones before and after it in the list that was seen last. */
  wayOn(usage) {
    const keys = order().map(({ key }) => key);
    const list = keys.includes(this.id) ? keys : [...usage.instances.keys()];
    const at = list.indexOf(this.id);
    for (const [node, key] of [[this.before, list[at - 1]], [this.after, list[at + 1]]]) {
      const there = at >= 0 ? usage.instances.get(key) : undefined;
      node.hidden = !there;
      if (there) {
        node.href = link('instance', [there.told.project, there.told.name], { target: this.target });
        node.title = shown(there.told.name);
      }
    }
  }

  now() {
    const { figures } = this;
    const pair = (one, two) => `↓ ${bytesPerSecond(figures[one])}\n↑ ${bytesPerSecond(figures[two])}`;
    const of = (value, write) => (value > 0 ? t('of', { limit: write(value, 0) }) : '');
    const tiles = [
      ['column.cpu', cores(figures.cpu), of(figures.cpu_limit, cores)],
      ['column.memory', bytes(figures.memory), of(figures.memory_limit, bytes)],
      ['column.disk', pair('disk_read', 'disk_written'), ''],
      ['column.network', pair('network_received', 'network_sent'), ''],
      ['column.processes', count(figures.processes), ''],
      ['column.uptime', duration(this.uptime), ''],
    ];
    if (this.tiles.childElementCount === 0) {
      for (const [label] of tiles) {
        this.tiles.append(el('div', { class: 'total' }, el('dt', {}, t(label)),
          el('dd', {}, el('span', { class: 'total-value' }), el('span', { class: 'of' }))));
      }
    }
    tiles.forEach(([, value, limit], index) => {
      const [text, after] = this.tiles.children[index].querySelectorAll('span');
      setText(text, value);
      text.title = value === ABSENT ? t('absent') : '';
      text.classList.toggle('smaller', value.includes('↑'));
      setText(after, limit);
    });
  }

  takeHistory(history) {
    this.history = history;
    // Where a slot tells of the time, what was heard live meanwhile has done its part.
    this.live = this.live.filter(({ time }) => time > history.end - history.step);
    this.draw();
  }

  /** The hour: the slots of the history, and after them what was heard since. */
  draw() {
    if (!this.history || !this.Chart || this.destroyed) return;
    const { end, step, figures = {} } = this.history;
    const all = Math.max(0, ...Object.values(figures).map((values) => values.length));
    // The last slot is not over yet: what was heard in it says more.
    const live = this.live.filter(({ time }) => time > end - step);
    const until = live.length > 0 ? all - 1 : all;
    const padded = (values) => [...new Array(all - values.length).fill(null), ...values];
    // A server that has just been started has not seen an hour yet.
    const firsts = Object.values(figures).map((values) => padded(values).findIndex((value) => value !== null));
    const from = Math.max(0, Math.min(until, ...firsts.filter((at) => at >= 0)));
    const past = Array.from({ length: Math.max(0, until - from) }, (_, index) => end - (all - from - index - 0.5) * step);
    const times = [...past, ...live.map(({ time }) => time)];
    let shownCharts = 0;
    for (const chart of CHARTS) {
      const isKnown = ({ figure }) => {
        const isIt = (value) => value !== null && value !== undefined && (value > 0 || !chart.quiet);
        return figures[figure]?.some(isIt) || live.some(({ figures: now }) => isIt(now[figure]));
      };
      const series = chart.series.filter(isKnown);
      if (!series.some(({ limit }) => !limit)) continue;
      shownCharts += 1;
      const kept = this.chart(chart, series);
      const columns = series.map(({ figure }) => {
        const then = padded(figures[figure] ?? []).slice(from, from + past.length);
        return [...then, ...live.map(({ figures: now }) => now[figure] ?? null)];
      });
      kept.show(times, columns, series.map(({ figure }) => (this.gone ? undefined : this.figures?.[figure])));
    }
    const empty = this.chartsBox.querySelector('.empty');
    if (shownCharts > 0) empty?.remove();
    else if (empty) setText(empty, t(MISSING[this.history.missing] ?? 'instance.nothing'));
  }

  /** The chart of these series; one with other series takes the place of the one that there was. */
  chart(chart, series) {
    const id = series.map(({ figure }) => figure).join();
    const old = this.charts.get(chart.title);
    if (old?.id === id) return old.chart;
    const made = new this.Chart({ ...chart, series });
    const rank = CHARTS.indexOf(chart);
    const after = CHARTS.slice(rank + 1).map(({ title }) => this.charts.get(title)).find(Boolean);
    if (old) old.chart.element.replaceWith(made.element);
    else this.chartsBox.insertBefore(made.element, after?.chart.element ?? null);
    old?.chart.destroy();
    this.charts.set(chart.title, { id, chart: made });
    return made;
  }

  takeState(state) {
    this.state = state;
    this.factsNow();
  }

  factsNow() {
    const { told, state } = this;
    if (!told) return;
    const addresses = Object.entries(state?.network ?? {}).flatMap(([name, { addresses: list }]) =>
      (list ?? []).filter(({ scope }) => scope === 'global').map(({ address }) => `${address} (${name})`));
    const facts = [
      ['column.name', told.name], ['column.project', told.project], ['column.type', typeWords(told.type)], ['column.runtime', told.runtime],
      ['column.location', told.location === 'none' ? '' : told.location],
      ['fact.hostname', state?.hostname], ['fact.started', told.boot_time > 0 ? moment(told.boot_time) : ABSENT],
      ['fact.pid', state?.pid > 0 ? String(state.pid) : ''], ['fact.vcpus', state?.vcpus > 0 ? count(state.vcpus) : ''],
      ['fact.addresses', addresses.join(', ')], ['fact.source', told.source ?? ''],
    ].filter(([, value]) => value);
    const text = JSON.stringify(facts);
    if (this.factsText === text) return;
    this.factsText = text;
    this.facts.replaceChildren(...facts.map(([label, value]) => el('div', {}, el('dt', {}, t(label)), el('dd', {}, foreign(value)))));
  }

  takeSources({ cgroups = [], figures = [] }) {
    const list = (values) => el('ul', {}, ...values.map((value) => el('li', {}, foreign(value, { title: null }))));
    const rows = figures.map(({ what, families = [], from = [], lacks = [] }) => el('tr', {},
      el('th', { scope: 'row' }, shown(what)),
      el('td', { 'data-label': t('sources.from') }, from.length > 0 ? list(from) : ABSENT),
      el('td', { 'data-label': t('sources.families') }, families.length > 0 ? list(families) : ABSENT),
      el('td', { 'data-label': t('sources.lacks') }, lacks.length > 0 ? list(lacks) : ABSENT)));
    this.sources.replaceChildren(
      cgroups.length > 0 ? el('details', {}, el('summary', {}, t('sources.cgroups', { n: count(cgroups.length) })),
        list(cgroups.map(({ hierarchy, directory }) => `${hierarchy}: ${directory}`))) : '',
      el('details', {}, el('summary', {}, t('sources.figures', { n: count(figures.length) })),
        el('table', { class: 'plain cards', 'aria-label': t('instance.sources') },
          el('thead', {}, el('tr', {}, ...['sources.what', 'sources.from', 'sources.families', 'sources.lacks']
            .map((label) => el('th', { scope: 'col' }, t(label))))),
          el('tbody', {}, ...rows))));
  }

  /** The keys of this view. */
  key(key) {
    const node = { ArrowLeft: this.before, ArrowRight: this.after }[key];
    if (!node || node.hidden) return false;
    node.click();
    return true;
  }

  pause(isPaused) {
    for (const poll of this.polls) {
      if (isPaused) poll.pause();
      else poll.resume();
    }
  }

  /** Draws anew, as the colours have changed. */
  redraw() {
    for (const { chart } of this.charts.values()) chart.redraw();
  }

  destroy() {
    this.destroyed = true;
    for (const poll of this.polls) poll.stop();
    for (const { chart } of this.charts.values()) chart.destroy();
  }
}
