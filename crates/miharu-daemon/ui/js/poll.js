// Asking again and again: one question at a time, none while nobody looks, and with growing pauses while there is no answer.

const LONGEST = 60;

export class Poll {
  /**
   * `ask(signal)` asks, `answer(result)` takes what came, `state(name, detail)` is told how it goes: `connecting`, `live`, `paused`,
   * `hidden`, or `failing` with the failure and the seconds until the next attempt.
   */
  constructor({ ask, answer, state = () => {}, interval }) {
    Object.assign(this, { ask, answer, state, interval });
    this.failures = 0;
    this.paused = false;
    this.abort = null;
    this.timer = null;
    this.seen = () => this.turn();
    document.addEventListener('visibilitychange', this.seen);
    state('connecting');
    this.turn();
  }

  /** Asks at once, unless it is asking or may not. */
  turn() {
    clearTimeout(this.timer);
    if (this.stopped || this.abort) return;
    if (document.hidden) this.state('hidden');
    else if (this.paused) this.state('paused');
    else this.run();
  }

  async run() {
    const abort = (this.abort = new AbortController());
    let wait;
    const began = performance.now();
    try {
      const result = await this.ask(abort.signal);
      if (this.stopped || this.abort !== abort) return;
      this.failures = 0;
      this.answer(result);
      if (!this.paused) this.state('live');
      // The time that the answer took is part of the interval.
      wait = Math.max(0.5, this.interval - (performance.now() - began) / 1000);
    } catch (error) {
      if (this.stopped || this.abort !== abort) return;
      if (error.status === undefined) console.error(error);
      this.failures += 1;
      wait = Math.min(LONGEST, this.interval * 2 ** Math.min(this.failures - 1, 5));
      this.state('failing', { error, wait });
    }
    this.abort = null;
    if (this.paused || document.hidden) this.turn();
    else this.timer = setTimeout(() => this.turn(), wait * 1000);
  }

  pause() {
    this.paused = true;
    this.turn();
  }

  resume() {
    this.paused = false;
    this.failures = 0;
    this.turn();
  }

  /** Another pause between questions, in seconds, from now on. */
  pace(interval) {
    this.interval = interval;
    this.turn();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.abort?.abort();
    document.removeEventListener('visibilitychange', this.seen);
  }
}
