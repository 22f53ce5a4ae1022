// Making elements. What others wrote (names of instances, projects, messages) goes in as text only, so that none of it can become
// markup, and what would be invisible or turn the direction of reading is shown by its number.

/** An element with attributes and children; text children become text. A value of `null` or `undefined` leaves its attribute out. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

const SVG = 'http://www.w3.org/2000/svg';

/** As `el`, for the parts of a picture. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Controls, marks of direction, and what has no width.
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/gu;

/** A text of somebody else, with everything in it that could not be seen written out. */
export function shown(text) {
  return String(text ?? '').replace(INVISIBLE, (sign) => `‹U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}›`);
}

/** The longest message that is shown. */
const LONGEST = 500;

/** A message of somebody else: as `shown`, in one line and of a bearable length, without a full stop at its end. */
export function said(text) {
  const line = String(text ?? '').replace(/\s+/g, ' ').trim();
  return shown(line.length > LONGEST ? `${line.slice(0, LONGEST)} …` : line.replace(/[.。]+$/, ''));
}

/** An element for a text of somebody else: on its own as to direction, and whole in its title where it may be cut. */
export function foreign(text, attributes = {}) {
  const safe = shown(text);
  return el('bdi', { title: safe, ...attributes }, safe);
}

/** Changes the text of a node only where it differs, which spares the browser the layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The same for an attribute; `null` takes it away. */
export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}
