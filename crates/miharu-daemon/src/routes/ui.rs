//! `/ui/`: the web page. Its files are part of the program, and it asks the API for everything else.

use std::sync::{Arc, LazyLock, OnceLock};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH,
    LOCATION, REFERRER_POLICY, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::app::App;
use crate::auth::Caller;
use crate::negotiate::{self, Encoding};
use crate::respond::ApiError;

/// What a browser may do with what is served below `/ui/`: run and show what comes from here, and ask this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What a page of this server never asks a browser for.
const PERMISSIONS: &str = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

/// Every answer below `/ui/` has these.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), PERMISSIONS),
    // Kept, and asked for anew each time: a newer server has newer files under the same names.
    (CACHE_CONTROL, "no-cache"),
];

/// What somebody gets who is not trusted: nothing of it needs a script, a style or another file.
const REFUSAL: &str = include_str!("ui/refusal.html");

/// A file of the page.
#[derive(Debug)]
struct File {
    /// Its path below `/ui/`.
    path: &'static str,
    content: &'static [u8],
    /// The tag and the compressed forms, made when they are first asked for.
    served: OnceLock<Served>,
}

#[derive(Debug)]
struct Served {
    tag: String,
    gzip: Bytes,
    zstd: Bytes,
}

macro_rules! vec_of_files {
    ($($path:literal),* $(,)?) => {
        vec![$(File {
            path: $path,
            content: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/ui/", $path)),
            served: OnceLock::new(),
        }),*]
    };
}

/// Every file of `crates/miharu-daemon/ui`; a test holds that none is missing.
static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    vec_of_files![
        "icon.svg",
        "index.html",
        "js/api.js",
        "js/chart.js",
        "js/columns.js",
        "js/dom.js",
        "js/figures.js",
        "js/format.js",
        "js/help.js",
        "js/i18n.js",
        "js/instance.js",
        "js/instances.js",
        "js/lists.js",
        "js/main.js",
        "js/poll.js",
        "js/route.js",
        "js/settings.js",
        "js/spark.js",
        "js/table.js",
        "js/usage.js",
        "style.css",
        "vendor/LICENSE",
        "vendor/uPlot.esm.js",
        "vendor/uPlot.min.css",
        "words/en.js",
        "words/ja.js",
    ]
});

/// `GET /ui`.
pub(super) async fn redirect() -> Response {
    let to = [(LOCATION, HeaderValue::from_static("/ui/"))];
    guarded((StatusCode::PERMANENT_REDIRECT, to).into_response())
}

/// `GET /ui/`.
pub(super) async fn index(caller: Caller, headers: HeaderMap) -> Response {
    serve(&caller, "index.html", &headers)
}

/// `GET /ui/FILE`.
pub(super) async fn file(
    State(_): State<Arc<App>>,
    caller: Caller,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
    headers: HeaderMap,
) -> Response {
    match path {
        Ok(Path(path)) => serve(&caller, &path, &headers),
        Err(_) => guarded(ApiError::not_found().into_response()),
    }
}

fn serve(caller: &Caller, path: &str, headers: &HeaderMap) -> Response {
    // Who may read metrics alone would see half a page.
    if !matches!(caller, Caller::Local | Caller::Client | Caller::RestrictedClient(_)) {
        let kind = [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
        return guarded((StatusCode::FORBIDDEN, kind, REFUSAL).into_response());
    }
    match FILES.iter().find(|file| file.path == path) {
        Some(file) => guarded(file.answer(headers)),
        None => guarded(ApiError::not_found().into_response()),
    }
}

fn guarded(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl File {
    fn answer(&self, asked: &HeaderMap) -> Response {
        let encoding = negotiate::encoding(asked);
        let served = self.served.get_or_init(|| {
            let plain = Bytes::from_static(self.content);
            let tag = miharu_store::fingerprint(self.content);
            Served { tag, gzip: Encoding::Gzip.compress(plain.clone()), zstd: Encoding::Zstd.compress(plain) }
        });
        let (body, form) = match encoding {
            Encoding::Identity => (Bytes::from_static(self.content), ""),
            Encoding::Gzip => (served.gzip.clone(), "-gzip"),
            Encoding::Zstd => (served.zstd.clone(), "-zstd"),
        };
        let tag = format!("\"{}{form}\"", served.tag);
        let is_known = asked
            .get_all(IF_NONE_MATCH)
            .into_iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|value| matches!(value.trim(), "*") || value.trim().trim_start_matches("W/") == tag);
        let mut response =
            if is_known { StatusCode::NOT_MODIFIED.into_response() } else { Response::new(Body::from(body)) };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type()));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        // A hash in hexadecimal and a word, so it is a value.
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(ETAG, tag);
        }
        if let Some(encoding) = encoding.header().filter(|_| !is_known) {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        response
    }

    fn content_type(&self) -> &'static str {
        match self.path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("woff2") => "font/woff2",
            Some("webmanifest") => "application/manifest+json",
            _ => "text/plain; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path as FilePath;

    use super::*;

    fn below(dir: &FilePath, root: &FilePath, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, root, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_of_the_page_is_served_and_has_a_type() {
        let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("ui");
        let mut found = BTreeSet::new();
        below(&root, &root, &mut found);
        let served: BTreeSet<_> = FILES.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(served, found, "FILES on the left, crates/miharu-daemon/ui on the right");
        for file in FILES.iter() {
            let is_text = file.content_type().starts_with("text/plain");
            assert_eq!(is_text, file.path.ends_with("LICENSE"), "{}", file.path);
        }
    }

    #[test]
    fn nothing_in_the_pages_needs_what_the_policy_forbids() {
        let pages = FILES.iter().filter(|file| file.path.ends_with(".html"));
        let pages = pages.map(|file| std::str::from_utf8(file.content).unwrap()).chain([REFUSAL]);
        for page in pages {
            for inline in ["<style", "style=", "onclick", "onload", "javascript:", "http://", "https://"] {
                assert!(!page.contains(inline), "{inline}");
            }
            assert!(!page.contains("<script>"), "a script in the page");
        }
    }
}
