// What the server said last of its instances, and the line that each sparkline draws.
//
// The last half hour is asked for once. From then on every answer carries it on here, so that no refresh brings 500 half hours
// along; after a gap longer than a slot it is asked for anew.

/** Seconds that a slot of the server's history is long, and how many of them a sparkline shows. */
const SLOT = 30;
const SLOTS = 60;

/** What of the answer sparklines are drawn from. */
const RECENT = ['cpu', 'memory', 'disk_read', 'disk_written', 'network_received', 'network_sent'];

/** An instance that was there at the last answer. */
class Instance {
  constructor(key) {
    this.key = key;
    this.lines = Object.fromEntries(RECENT.map((name) => [name, []]));
  }

  take(told, slots) {
    this.told = told;
    this.figures = told.figures ?? {};
    for (const name of RECENT) {
      const recent = told.recent?.[name];
      if (recent) this.lines[name] = recent.slice(-SLOTS);
      const line = this.lines[name];
      for (let slot = 0; slot < slots; slot += 1) line.push(null);
      if (line.length > SLOTS) line.splice(0, line.length - SLOTS);
      if (line.length === 0) line.push(null);
      line[line.length - 1] = this.figures[name] ?? line[line.length - 1];
    }
  }

  /** The worst of its pressures: the figure's name and value, or nothing. */
  pressure() {
    let worst = null;
    for (const name of ['pressure_cpu', 'pressure_memory', 'pressure_io']) {
      const value = this.figures[name];
      if (value !== undefined && (worst === null || value > worst.value)) worst = { name, value };
    }
    return worst;
  }

  /** Seconds since its start, by the server's clock. */
  uptime(now) {
    const { boot_time: booted } = this.told;
    return typeof booted === 'number' && booted > 0 ? Math.max(0, now - booted) : undefined;
  }
}

/** All of a server's instances. */
export class Usage {
  constructor() {
    this.instances = new Map();
    this.time = null;
    this.began = null;
  }

  /** Whether the next question has to ask for the last half hour too. */
  wantsRecent() {
    return this.time === null || Date.now() / 1000 - this.heard > SLOT;
  }

  /** Takes an answer. `false` where it is the one that was there already. */
  take(answer) {
    this.heard = Date.now() / 1000;
    const isSame = this.time === answer.time;
    const hasRecent = answer.instances.some((told) => told.recent);
    if (isSame && !hasRecent) return false;
    // A clock that was set back begins the slots anew.
    const isBack = this.time !== null && answer.time < this.time;
    if (this.began === null || hasRecent || isBack) this.began = answer.time;
    const slots = hasRecent ? 0 : Math.min(SLOTS, Math.floor((answer.time - this.began) / SLOT));
    this.began += slots * SLOT;
    this.time = answer.time;
    this.server = answer;
    const gone = new Set(this.instances.keys());
    for (const told of answer.instances) {
      const key = keyOf(told.project, told.name);
      let instance = this.instances.get(key);
      if (!instance) this.instances.set(key, (instance = new Instance(key)));
      instance.take(told, slots);
      gone.delete(key);
    }
    for (const key of gone) this.instances.delete(key);
    return true;
  }
}

/** What tells an instance from all others of a server. Neither part can hold a NUL. */
export function keyOf(project, name) {
  return `${project}\u0000${name}`;
}
