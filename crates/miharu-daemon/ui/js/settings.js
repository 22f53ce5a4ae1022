// What a visitor has chosen, kept in the browser. Where nothing may be kept, it holds until the page is left.

const DEFAULTS = { language: null, theme: 'auto', interval: 5, keys: true };
const KEY = 'miharu.ui';

let kept = { ...DEFAULTS, ...read() };

function read() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? '{}');
    return typeof found === 'object' && found !== null ? found : {};
  } catch {
    return {};
  }
}

export const THEMES = ['auto', 'light', 'dark'];
/** Seconds between two questions. */
export const INTERVALS = [2, 5, 10, 30];

/** The choice of this name. */
export function setting(name) {
  const value = kept[name];
  if (name === 'theme' && !THEMES.includes(value)) return DEFAULTS.theme;
  if (name === 'interval' && !INTERVALS.includes(value)) return DEFAULTS.interval;
  return value;
}

/** Chooses, and remembers it. */
export function choose(name, value) {
  kept = { ...kept, [name]: value };
  try {
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // A browser that keeps nothing is no reason to fail.
  }
}
