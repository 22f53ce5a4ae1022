// What keys do, and the dialog that tells.

import { el } from './dom.js';
import { t } from './i18n.js';
import { choose, setting } from './settings.js';

const KEYS = [
  ['/', 'help.filter'], ['↑ ↓', 'help.rows'], ['Enter', 'help.enter'], ['← →', 'help.neighbours'], ['Esc', 'help.back'], ['p', 'help.pause'],
  ['1 2 3', 'help.views'], ['?', 'help.help'],
];

/** Opens the dialog. */
export function openHelp() {
  const dialog = document.getElementById('help');
  if (dialog.open) return;
  const box = el('input', { type: 'checkbox', onchange: () => choose('keys', box.checked) });
  box.checked = setting('keys') !== false;
  dialog.replaceChildren(
    el('h2', { id: 'help-title' }, t('help.title')),
    el('table', { class: 'keys', 'aria-labelledby': 'help-title' }, el('tbody', {}, ...KEYS.map(([keys, words]) =>
      el('tr', {}, el('th', { scope: 'row' }, ...keys.split(' ').flatMap((key) => [el('kbd', {}, key), ' '])), el('td', {}, t(words)))))),
    el('label', { class: 'check' }, box, ' ', t('help.keys')),
    el('p', {}, t('help.page')),
    el('button', { type: 'button', class: 'button', onclick: () => dialog.close() }, t('help.close')));
  dialog.showModal();
}

/** Gives keys that nothing else takes to `act`, which tells whether it knew what to do. */
export function listen(act) {
  document.addEventListener('keydown', (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.getElementById('help').open) return;
    const at = event.target;
    const isTyping = at.matches?.('input, select, textarea');
    if (isTyping && event.key !== 'Escape') return;
    // Single letters may be switched off, as those who speak to their computer press them without meaning to.
    if (event.key.length === 1 && setting('keys') === false) return;
    if (act(event.key, at)) event.preventDefault();
  });
}
