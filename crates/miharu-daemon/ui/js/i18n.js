// The page's own words, in the language of the visitor.

import en from '../words/en.js';
import ja from '../words/ja.js';
import { choose, setting } from './settings.js';

export const LANGUAGES = { en: 'English', ja: '日本語' };
const WORDS = { en, ja };

// Asked for thousands of times a refresh.
let now = null;

/** The language of now: what was chosen, else the first of the browser's that there is. */
export function language() {
  now ??= find();
  return now;
}

/** Chooses a language, and remembers it. */
export function speak(language) {
  choose('language', language);
  now = null;
}

function find() {
  const chosen = setting('language');
  if (Object.hasOwn(WORDS, chosen ?? '')) return chosen;
  const wanted = (navigator.languages ?? []).map((tag) => tag.split('-')[0]);
  return wanted.find((tag) => Object.hasOwn(WORDS, tag)) ?? 'en';
}

/** The words under a key, with `{name}` replaced by the values. */
export function t(key, values = {}) {
  const words = WORDS[language()][key];
  if (words === undefined) {
    console.error(`no words for ${key}`);
    return key;
  }
  return words.replace(/\{(\w+)\}/g, (all, name) => (Object.hasOwn(values, name) ? String(values[name]) : all));
}

/** Fills in the words of the elements that name theirs: `data-t` for the text, `data-t-label` for the accessible name. */
export function translate(root) {
  for (const node of root.querySelectorAll('[data-t]')) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll('[data-t-label]')) {
    node.setAttribute('aria-label', t(node.dataset.tLabel));
  }
}
