// Asking the server. Everything is a GET; the page changes nothing.

/** Longer than a collection may take. */
const PATIENCE = 20_000;

/** An answer that is none: `status` is the HTTP status, or 0 where the server was not reached. */
export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Beside `/ui/`, wherever a proxy may have put that.
const ROOT = new URL('../1.0', document.baseURI).href;

/** The metadata under a path of `/1.0`; the elements of the path are escaped here. */
export async function ask(parts, query = {}, signal = undefined) {
  const url = new URL([ROOT, ...parts.map(encodeURIComponent)].join('/'));
  for (const [key, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '') url.searchParams.set(key, value);
  }
  const limit = AbortSignal.timeout(PATIENCE);
  let response;
  let body;
  try {
    response = await fetch(url, {
      headers: { Accept: 'application/json' },
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    body = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure(0, error.message);
  }
  let envelope = null;
  try {
    envelope = JSON.parse(body);
  } catch {
    // The status says enough; a proxy's page would say less.
  }
  if (!response.ok || envelope?.type !== 'sync') {
    throw new Failure(response.ok ? 502 : response.status, envelope?.error || response.statusText || String(response.status));
  }
  return envelope.metadata;
}
