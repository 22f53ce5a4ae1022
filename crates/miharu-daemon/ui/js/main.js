// The page: its head, which view is shown, and the one question that goes on and on for it.

import { ask } from './api.js';
import { said, setText, shown } from './dom.js';
import { clock, count } from './format.js';
import { listen, openHelp } from './help.js';
import { language, LANGUAGES, speak, t, translate } from './i18n.js';
import { InstanceView } from './instance.js';
import { back, InstancesView } from './instances.js';
import { ClusterView, newOnes, WarningsView } from './lists.js';
import { Poll } from './poll.js';
import { here, link } from './route.js';
import { choose, INTERVALS, setting, THEMES } from './settings.js';
import { Usage } from './usage.js';

const node = Object.fromEntries(['main', 'server', 'version', 'state', 'state-text', 'trouble', 'trouble-text', 'trouble-again', 'trouble-now', 'pause', 'interval', 'theme', 'language',
  'settings', 'settings-toggle', 'help-open', 'warnings-count', 'nav', 'skip'].map((id) => [id, document.getElementById(id)]));

/** Seconds between two looks at what changes seldom. */
const SELDOM = 60;

let view = null;
let poll = null;
let isPaused = false;
let usage = new Usage();
let usageTarget = '';
let server = null;
let members = [];
let lastAnswer = null;
let wasFailing = false;

/** Makes the view that the address names. */
function show(how) {
  const { view: name, parts, query } = here();
  const target = query.get('target') ?? '';
  poll?.stop();
  view?.destroy?.();
  if (target !== usageTarget) usage = new Usage();
  usageTarget = target;
  const isInstance = name === 'instance' && parts.length === 2;
  const isList = name === 'cluster' || name === 'warnings';
  if (isInstance) view = new InstanceView({ parts, target });
  else if (name === 'cluster') view = new ClusterView();
  else if (name === 'warnings') view = new WarningsView({ target, counted: showWarnings });
  else view = new InstancesView({ isCluster: members.length > 0, members, target });
  node.main.replaceChildren(view.element);
  document.title = `${view.title} – ${server?.environment?.server_name ?? 'miharu'}`;
  for (const entry of node.nav.querySelectorAll('a')) {
    const isHere = entry.dataset.view === (isList ? name : 'instances');
    if (isHere) entry.setAttribute('aria-current', isInstance ? 'true' : 'page');
    else entry.removeAttribute('aria-current');
  }
  if (how === 'moved') {
    window.scrollTo(0, 0);
    view.element.querySelector('h1')?.focus({ preventScroll: true });
  }
  poll = isList ? new Poll({ ask: askList, answer: (answer) => answered(() => (answer ? view.answer(answer) : view.refuse())), state: showState, interval: 15 })
    : new Poll({ ask: askUsage, answer: takeUsage, state: showState, interval: setting('interval') });
  if (isPaused) holdAll();
  // What is known already is shown before the next answer comes.
  if (!isList && usage.time !== null) view.update(usage);
}

/** What a list wants to know; `null` where this visitor, who is let in, may not see it. */
async function askList(signal) {
  try {
    return await view.ask(signal);
  } catch (error) {
    if (error.status === 403 && (await ask([], {}, signal)).auth === 'trusted') return null;
    throw error;
  }
}

function askUsage(signal) {
  return ask(['usage'], {
    recent: usage.wantsRecent() ? 'true' : '', max_age: Math.max(1, setting('interval') - 1), target: usageTarget,
  }, signal);
}

function takeUsage(answer) {
  const isNew = usage.take(answer);
  answered(() => {
    if (!isNew) return;
    performance.mark('refresh-begin');
    view.update(usage);
    if (performance.getEntriesByName('refresh').length >= 50) performance.clearMeasures('refresh');
    performance.measure('refresh', 'refresh-begin');
    performance.clearMarks('refresh-begin');
  });
}

function answered(act) {
  lastAnswer = Date.now() / 1000;
  act();
  // A server that was away may have come back as another version, or as a member of a cluster.
  if (wasFailing) askServer();
  wasFailing = false;
}

/** Words for how the connection is. */
const STATES = { connecting: 'state.connecting', live: 'state.live', paused: 'state.paused', hidden: 'state.hidden', failing: 'state.failing' };

/** Says how the connection is; screen readers hear it where it changes. */
function showState(state, detail) {
  // Going from one view to the next is no news of the connection.
  if (state === 'connecting' && lastAnswer !== null) return;
  const isFailing = state === 'failing';
  node.state.dataset.state = state;
  setText(node['state-text'], t(STATES[state]));
  node.state.title = lastAnswer === null ? '' : t('state.last', { time: clock(lastAnswer) });
  node.trouble.hidden = !isFailing;
  // What is on the page is old then, and must not look live.
  node.main.classList.toggle('stale', isFailing && lastAnswer !== null);
  if (!isFailing) return;
  wasFailing = true;
  const { error, wait } = detail;
  const since = lastAnswer === null ? '' : ` ${t('trouble.since', { time: clock(lastAnswer) })}`;
  setText(node['trouble-text'], why(error) + since);
  setText(node['trouble-again'], t('trouble.again', { n: count(Math.round(wait)) }));
}

function why({ status, message }) {
  if (!status) return t('trouble.unreachable');
  if (status === 401 || status === 403) return t('trouble.forbidden');
  return t('trouble.answered', { status, why: said(message) });
}

function showWarnings(n) {
  node['warnings-count'].hidden = n === 0;
  setText(node['warnings-count'], count(n));
  node['warnings-count'].title = t('warning.badge', { n: count(n) });
}

/** Who answers, and whether it is one of a cluster. */
async function askServer() {
  try {
    server = await ask([]);
    const { server_name: name, server_version: version } = server.environment ?? {};
    setText(node.server, shown(name ?? 'miharu'));
    node.server.title = shown(name ?? '');
    setText(node.version, version ? `miharu ${shown(version)}` : '');
    document.title = `${view?.title ?? ''} – ${shown(name ?? 'miharu')}`;
    const cluster = await ask(['cluster']);
    const found = cluster.enabled ? (await ask(['cluster', 'members'], { recursion: 1 })).map((member) => member.server_name) : [];
    const others = found.filter((member) => member !== cluster.server_name);
    const isOther = JSON.stringify(others) !== JSON.stringify(members);
    members = others;
    if (isOther && view instanceof InstancesView) show();
  } catch {
    // The question that goes on says what is wrong; a restricted certificate may not see the cluster.
  }
}

async function askWarnings() {
  if (document.hidden || isPaused || view instanceof WarningsView) return;
  try {
    showWarnings(newOnes(await ask(['warnings'], { recursion: 1, target: usageTarget })));
  } catch {
    // As above.
  }
}

function hold(isHeld) {
  isPaused = isHeld;
  if (isHeld) holdAll();
  else {
    poll?.resume();
    view?.pause?.(false);
  }
  showPause();
}

function holdAll() {
  poll?.pause();
  view?.pause?.(true);
}

function showPause() {
  node.pause.setAttribute('aria-pressed', String(isPaused));
  setText(node.pause, isPaused ? t('resume') : t('pause'));
}

function showTheme() {
  const theme = setting('theme');
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  view?.redraw?.();
}

const THEME_WORDS = { auto: 'theme.auto', light: 'theme.light', dark: 'theme.dark' };

/** Everything of the head that is words. */
function showHead() {
  document.documentElement.lang = language();
  translate(document.body);
  showPause();
  offer(node.interval, INTERVALS.map((seconds) => [seconds, t('settings.seconds', { n: seconds })]), setting('interval'));
  offer(node.theme, THEMES.map((theme) => [theme, t(THEME_WORDS[theme])]), setting('theme'));
  offer(node.language, Object.entries(LANGUAGES), language());
}

function offer(select, options, chosen) {
  select.replaceChildren(...options.map(([value, words]) => new Option(words, value, false, value === chosen)));
}

node.interval.addEventListener('change', () => {
  choose('interval', Number(node.interval.value));
  if (!(view instanceof ClusterView || view instanceof WarningsView)) poll?.pace(setting('interval'));
});
node.theme.addEventListener('change', () => {
  choose('theme', node.theme.value);
  showTheme();
});
node.language.addEventListener('change', () => {
  speak(node.language.value);
  showHead();
  show();
});
node.pause.addEventListener('click', () => hold(!isPaused));
node['trouble-now'].addEventListener('click', () => poll?.turn());
node['help-open'].addEventListener('click', openHelp);
node['settings-toggle'].addEventListener('click', () => {
  const isOpen = node.settings.classList.toggle('open');
  node['settings-toggle'].setAttribute('aria-expanded', String(isOpen));
});
node.skip.addEventListener('click', (event) => {
  event.preventDefault();
  node.main.focus();
});
// What sticks below the head has to know how high that is.
new ResizeObserver(([{ target }]) => {
  document.documentElement.style.setProperty('--head', `${target.offsetHeight}px`);
}).observe(document.querySelector('.top'));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => view?.redraw?.());
window.addEventListener('hashchange', () => show('moved'));

const VIEWS = { 1: 'instances', 2: 'cluster', 3: 'warnings' };

listen((key, at) => {
  if (key === '?') openHelp();
  else if (key === 'p') hold(!isPaused);
  else if (VIEWS[key]) location.hash = link(VIEWS[key]);
  else if (key === 'Escape') return escape(at);
  else return view?.key?.(key) ?? false;
  return true;
});

/** Out of what one is in: a field, then a view. */
function escape(at) {
  if (at !== document.body && at.matches('input, select, a, button')) at.blur();
  else if (view instanceof InstanceView) location.hash = back();
  else return false;
  return true;
}

showTheme();
showHead();
show();
askServer();
askWarnings();
setInterval(askWarnings, SELDOM * 1000);
