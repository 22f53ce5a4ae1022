// Where the visitor is, kept in the part of the address after `#`: `#/VIEW/PART…?query`. So that every view can be linked to, and
// the way back works.

/** The place of now. */
export function here() {
  const [path, query = ''] = location.hash.replace(/^#/, '').split('?', 2);
  const [view = '', ...parts] = path.split('/').filter((part, index) => index > 0 || part !== '').map(decode);
  return { view, parts, query: new URLSearchParams(query) };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a place. Values of the query that are empty are left out. */
export function link(view, parts = [], query = {}) {
  const path = [view, ...parts].map(encodeURIComponent).join('/');
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
  return `#/${path}${words && `?${words}`}`;
}

/** Makes an address the one of now, without a step in the browser's history and without another rendering. */
export function rename(address) {
  if (location.hash !== address) history.replaceState(null, '', address);
}
