// A chart of the last hour with a small table below it that says the same in figures, for who does not see the picture.

import uPlot from '../vendor/uPlot.esm.js';
import { el, setText } from './dom.js';
import { ABSENT, clock, clockShort, WRITERS } from './format.js';
import { t } from './i18n.js';

const HEIGHT = 200;
/** Steps of an axis of bytes: powers of two. */
const BINARY = Array.from({ length: 51 }, (_, power) => 2 ** power);

/** How high a chart goes at least, by its unit: next to nothing is to look like that. */
const LEAST = { cores: 0.01, bytes: 1024, bytesPerSecond: 1000, perSecond: 1, count: 4, ratio: 0.01 };

/** Seconds that a chart is wide at least. */
const SHORTEST = 600;

/** Charts of one page show the same moment under the pointer. */
const sync = uPlot.sync('miharu');

export class Chart {
  /** `chart` is one of `CHARTS`, less the series that there is nothing of. */
  constructor(chart) {
    this.chart = chart;
    this.write = WRITERS[chart.unit];
    const caption = el('figcaption', {}, t(chart.title));
    this.canvas = el('div', { class: 'chart-canvas', role: 'img' });
    this.rows = chart.series.map((series, index) => {
      const cells = ['now', 'mean', 'most'].map(() => el('td', { class: 'number' }));
      const mark = el('span', { class: `swatch series-${index}${series.limit ? ' limit' : ''}`, 'aria-hidden': 'true' });
      return { cells, element: el('tr', {}, el('th', { scope: 'row' }, mark, t(series.label)), ...cells) };
    });
    this.when = el('th', { scope: 'col' }, t('chart.now'));
    this.summary = el('table', { class: 'summary', 'aria-label': t('chart.summary', { chart: t(chart.title) }) },
      el('thead', {}, el('tr', {}, el('td'), this.when, el('th', { scope: 'col' }, t('chart.mean')), el('th', { scope: 'col' }, t('chart.most')))),
      el('tbody', {}, ...this.rows.map(({ element }) => element)));
    this.element = el('figure', { class: 'chart', 'data-chart': chart.title }, caption, this.canvas, this.summary);
    this.observer = new ResizeObserver(() => this.resize());
  }

  /** Draws columns of values over times, oldest first, `null` where there is none; `now` are the figures of this moment. */
  show(times, columns, now) {
    this.data = [times, ...columns];
    this.top = this.highest(columns);
    this.now = now;
    if (this.plot) {
      this.plot.setData(this.data);
    } else {
      this.plot = new uPlot(this.options(), this.data, this.canvas);
      this.observer.observe(this.canvas);
    }
    columns.forEach((column, index) => {
      const known = column.filter((value) => value !== null);
      const mean = known.length > 0 ? known.reduce((all, value) => all + value, 0) / known.length : undefined;
      setText(this.rows[index].cells[1], this.write(mean));
      setText(this.rows[index].cells[2], this.write(known.length > 0 ? known.reduce((a, b) => Math.max(a, b)) : undefined));
    });
    this.point(this.plot.cursor.idx);
    const first = this.rows[0].cells.map((cell) => cell.textContent);
    this.canvas.setAttribute('aria-label', t('chart.words', {
      chart: t(this.chart.title), figure: t(this.chart.series[0].label), now: this.write(now[0]), mean: first[1], most: first[2],
    }));
    this.canvas.dataset.points = String(columns[0].filter((value) => value !== null).length);
  }

  /** How high the chart goes: to a limit only where that leaves something to be seen of the rest. */
  highest(columns) {
    const tops = columns.map((column) => column.reduce((top, value) => Math.max(top, value ?? 0), 0));
    const ofLimits = (isLimit) => Math.max(0, ...tops.filter((top, index) => Boolean(this.chart.series[index].limit) === isLimit));
    const [used, limit] = [ofLimits(false), ofLimits(true)];
    return Math.max(LEAST[this.chart.unit], used, limit <= used * 5 || used === 0 ? limit : 0);
  }

  /** Shows the values of one moment, or those of now. */
  point(index) {
    const isPast = index !== null && index !== undefined && this.data[0][index] !== undefined;
    setText(this.when, isPast ? clock(this.data[0][index]) : t('chart.now'));
    this.rows.forEach(({ cells }, series) => {
      const value = isPast ? this.data[series + 1][index] : this.now[series];
      const text = this.write(value ?? undefined);
      setText(cells[0], text);
      cells[0].title = text === ABSENT ? t('absent') : '';
    });
  }

  options() {
    const colour = (name) => () => getComputedStyle(this.element).getPropertyValue(name).trim();
    const grid = { stroke: colour('--grid'), width: 1 };
    const axis = { stroke: colour('--muted'), grid, ticks: { ...grid, size: 4 }, font: '12px system-ui, sans-serif' };
    const isBytes = this.chart.unit === 'bytes';
    return {
      width: this.canvas.clientWidth || 400,
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: sync.key }, drag: { x: false, y: false }, points: { size: 6 } },
      hooks: { setCursor: [(plot) => this.point(plot.cursor.idx)] },
      scales: { x: { range: (plot, first, last) => [Math.min(first, last - SHORTEST), last] }, y: { range: () => [0, this.top * 1.08] } },
      axes: [
        { ...axis, size: 32, values: (plot, splits) => splits.map((at) => clockShort(at)), space: 60, incrs: [60, 300, 600, 900, 1800, 3600] },
        {
          ...axis, size: 74, space: 36, values: (plot, splits) => splits.map((value) => this.write(value, 0)),
          ...(isBytes ? { incrs: BINARY } : {}), ...(this.chart.unit === 'count' ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 1e4, 1e5] } : {}),
        },
      ],
      series: [{}, ...this.chart.series.map((series, index) => ({
        stroke: series.limit ? colour('--muted') : colour(`--series-${index}`),
        fill: index === 0 && !series.limit ? colour('--series-0-area') : undefined,
        width: 1.5,
        dash: series.limit ? [4, 4] : undefined,
        // A value between two gaps would not be seen as a line.
        points: { show: true, size: 4, filter: (plot, at) => alone(plot.data[at]) },
      }))],
    };
  }

  resize() {
    const width = this.canvas.clientWidth;
    if (width > 0 && this.plot && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  /** Draws anew, as the colours have changed. */
  redraw() {
    this.plot?.redraw();
  }

  destroy() {
    this.observer.disconnect();
    this.plot?.destroy();
  }
}

function alone(values) {
  const found = [];
  values.forEach((value, index) => {
    const isAlone = (values[index - 1] ?? null) === null && (values[index + 1] ?? null) === null;
    if (value !== null && isAlone) found.push(index);
  });
  return found;
}
