// Sparklines: a small picture beside a figure that says the same in words, so that screen readers pass over it.

import { svg } from './dom.js';

const WIDTH = 60;
const HEIGHT = 20;

/** An empty one, for as many lines as there are classes. */
export class Spark {
  constructor(...classes) {
    this.lines = classes.map((name) => svg('path', { class: `spark-line ${name}`, 'vector-effect': 'non-scaling-stroke' }));
    this.area = svg('path', { class: `spark-area ${classes[0]}` });
    this.element = svg('svg', {
      class: 'spark', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true', focusable: 'false',
    }, this.area, ...this.lines);
  }

  /**
   * Draws these values, oldest first, `null` where there is none; all lines to one scale that begins at 0 and goes up to `least` at
   * least, so that an instance that does next to nothing has a line at the bottom and not one blown up.
   */
  draw(least, ...values) {
    const most = Math.max(least, ...values.flat().filter((value) => value !== null));
    values.forEach((line, index) => this.lines[index].setAttribute('d', path(line, most)));
    this.area.setAttribute('d', values.length === 1 ? area(values[0], most) : '');
  }
}

function points(line, most) {
  const step = WIDTH / 59;
  const first = 60 - line.length;
  return line.map((value, index) => (value === null ? null : [
    ((first + index) * step).toFixed(1), (HEIGHT - 1 - (value / most) * (HEIGHT - 3)).toFixed(1),
  ]));
}

function path(line, most) {
  let d = '';
  let isDown = false;
  for (const point of points(line, most)) {
    if (point) d += `${isDown ? 'L' : 'M'}${point[0]} ${point[1]}`;
    // A value between two gaps would be a line of no length.
    if (point && !isDown) d += 'h0.1';
    isDown = point !== null;
  }
  return d;
}

function area(line, most) {
  let d = '';
  let run = [];
  for (const point of [...points(line, most), null]) {
    if (point) run.push(point);
    else if (run.length > 0) {
      d += `M${run[0][0]} ${HEIGHT}L${run.map((at) => at.join(' ')).join('L')}L${run.at(-1)[0]} ${HEIGHT}Z`;
      run = [];
    }
  }
  return d;
}
