//! Who comes in: the browser that brings the token, which works once, and from then on its cookie.
//!
//! A port of the loopback interface is open to every user of the host, and to every page that a browser here shows. So a request
//! must name this port as its host (a page that makes its own name point here does not), carry the cookie, come from no other page,
//! and read what the web page reads.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, HeaderName, LOCATION,
    REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;

/// Bytes of a secret.
const SECRET: usize = 32;
/// What the page reads beside its own files: these, and what is below them.
const READ: [&str; 5] = ["/1.0/instances", "/1.0/warnings", "/1.0/cluster", "/1.0/projects", "/1.0/usage"];

/// The content type of a line of words.
const PLAIN: &str = "text/plain; charset=utf-8";
/// What a browser without the cookie is told.
const REFUSAL: &str = include_str!("refusal.html");

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It goes to the daemon.
    Pass,
    /// It does not: this is the answer.
    Answer(Response<Full<Bytes>>),
}

/// The door.
#[derive(Debug)]
pub(super) struct Door {
    address: SocketAddr,
    token: Secret,
    session: Secret,
    is_used: AtomicBool,
}

impl Door {
    /// A door with new secrets.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub(super) fn new(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { address, token: Secret::new()?, session: Secret::new()?, is_used: AtomicBool::new(false) })
    }

    /// The address that opens it, once.
    pub(super) fn url(&self) -> String {
        format!("http://{}/ui/?token={}", self.address, self.token.0)
    }

    /// Browsers send a cookie to every port of a host, so its name has the port.
    fn cookie(&self) -> String {
        format!("miharu-webui-{}", self.address.port())
    }

    /// What becomes of this request.
    pub(super) fn judge(&self, head: &Parts) -> Verdict {
        if !self.is_called(head) {
            return refuse(StatusCode::MISDIRECTED_REQUEST, "this is no name of this page's server\n");
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            let words = "nothing can be changed here\n";
            let mut answer = written(StatusCode::METHOD_NOT_ALLOWED, PLAIN, words);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Verdict::Answer(answer);
        }
        if is_of_another_page(&head.headers) {
            return refuse(StatusCode::FORBIDDEN, "asked for by another page\n");
        }
        let is_in = self.has_cookie(&head.headers);
        if let Some(shown) = token(head) {
            // The token is taken once, by whoever is first; the browser that has the cookie may load the address again.
            let is_right = head.method == Method::GET && self.token.is(shown);
            if is_in || is_right && !self.is_used.swap(true, Ordering::SeqCst) {
                return self.admit();
            }
            return refuse_in_words();
        }
        if !is_in {
            return refuse_in_words();
        }
        if !is_of_page(head.uri.path()) {
            return refuse(StatusCode::NOT_FOUND, "the page does not need this\n");
        }
        Verdict::Pass
    }

    /// Whether the request calls this server by a name that no other can have, and by its port.
    fn is_called(&self, head: &Parts) -> bool {
        let mut hosts = head.headers.get_all(HOST).into_iter();
        let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else {
            return false;
        };
        let port = self.address.port();
        let names = [self.address.to_string(), format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        let is_one = |name: &str| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        // One with a whole address for its path names the host there, too.
        is_one(host) && head.uri.authority().is_none_or(|authority| is_one(authority.as_str()))
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let name = self.cookie();
        let values = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(known, value)| known == name && self.session.is(value))
    }

    fn admit(&self) -> Verdict {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::SEE_OTHER;
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie(), self.session.0);
        answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/ui/"));
        // Digits and letters, so it is a value.
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            answer.headers_mut().insert(SET_COOKIE, cookie);
        }
        Verdict::Answer(guard(answer))
    }
}

/// Random bytes, in hexadecimal.
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    fn new() -> std::io::Result<Self> {
        let mut bytes = [0; SECRET];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let mut text = String::with_capacity(2 * SECRET);
        for byte in bytes {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Self(text))
    }

    /// Whether somebody knows it. It takes as long for every text of that length.
    fn is(&self, shown: &str) -> bool {
        let pairs = self.0.bytes().zip(shown.bytes());
        self.0.len() == shown.len() && pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

/// The token that a request for the page shows.
fn token(head: &Parts) -> Option<&str> {
    let is_page = matches!(head.uri.path(), "/ui/" | "/ui");
    let mut pairs = head.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| is_page && *name == "token").map(|(_, token)| token)
}

/// Another page's script, image or frame. Pages on other ports of this host are of the same site, and get the cookie sent.
fn is_of_another_page(headers: &HeaderMap) -> bool {
    let of = |name: &'static str, words: &[&str]| {
        headers
            .get_all(HeaderName::from_static(name))
            .into_iter()
            .any(|value| words.iter().any(|word| value == word))
    };
    let is_link = of("sec-fetch-mode", &["navigate"]) && of("sec-fetch-dest", &["document"]);
    of("sec-fetch-site", &["cross-site", "same-site"]) && !is_link
}

/// Whether the page needs this.
fn is_of_page(path: &str) -> bool {
    let is_below =
        |of: &str| path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    // A name that a server or a proxy could take for another path is none that the page asks for.
    let is_plain = !path.split('/').any(|part| matches!(part, "." | ".."));
    is_plain && (is_below("/ui") || path == "/1.0" || READ.iter().any(|of| is_below(of)))
}

fn refuse(status: StatusCode, words: &'static str) -> Verdict {
    Verdict::Answer(written(status, PLAIN, words))
}

fn refuse_in_words() -> Verdict {
    Verdict::Answer(written(StatusCode::FORBIDDEN, "text/html; charset=utf-8", REFUSAL))
}

fn written(status: StatusCode, kind: &'static str, words: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(words.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    guard(response)
}

/// Adds what keeps an answer where it belongs. The token is in an address, so no address is told to anybody.
pub(super) fn guard(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn door() -> Door {
        Door::new("127.0.0.1:8500".parse().unwrap()).unwrap()
    }

    /// What an answer is: its status and its cookie; nothing for what passes.
    fn judged(
        door: &Door,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Option<(u16, Option<String>)> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        match door.judge(&head) {
            Verdict::Pass => None,
            Verdict::Answer(answer) => {
                assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
                let cookie =
                    answer.headers().get(SET_COOKIE).map(|cookie| cookie.to_str().unwrap().to_owned());
                Some((answer.status().as_u16(), cookie))
            }
        }
    }

    const HERE: (&str, &str) = ("host", "127.0.0.1:8500");

    fn status(door: &Door, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        judged(door, method, path, headers).map_or(200, |(status, _)| status)
    }

    /// A door that a browser has come through, and its cookie.
    fn opened() -> (Door, String) {
        let door = door();
        let path = door.url().strip_prefix("http://127.0.0.1:8500").unwrap().to_owned();
        let (status, cookie) = judged(&door, "GET", &path, &[HERE]).unwrap();
        assert_eq!(status, 303);
        let cookie = cookie.unwrap();
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
        (door, cookie.split(';').next().unwrap().to_owned())
    }

    #[test]
    fn the_token_works_once_and_the_cookie_as_long_as_the_door() {
        let (door, cookie) = opened();
        let path = door.url().strip_prefix("http://127.0.0.1:8500").unwrap().to_owned();
        assert_eq!(status(&door, "GET", &path, &[HERE]), 403);
        let mine = ("cookie", cookie.as_str());
        assert_eq!(status(&door, "GET", &path, &[HERE, mine]), 303, "who is in may load it again");
        for path in
            ["/ui/", "/ui/js/main.js", "/1.0", "/1.0/usage?recent=true", "/1.0/instances/a%2Fb/history"]
        {
            assert_eq!(status(&door, "GET", path, &[HERE, mine]), 200, "{path}");
            assert_eq!(status(&door, "HEAD", path, &[HERE, mine]), 200, "{path}");
            assert_eq!(status(&door, "GET", path, &[HERE]), 403, "{path}");
        }
        let many = format!("a=b; {cookie}; c=d");
        assert_eq!(status(&door, "GET", "/ui/", &[HERE, ("cookie", &many)]), 200);
        let (name, value) = cookie.split_once('=').unwrap();
        assert_eq!(name, "miharu-webui-8500");
        for wrong in [
            format!("{name}="),
            format!("{name}={}", value.strip_prefix(|_: char| true).unwrap()),
            format!("x={value}"),
            value.to_owned(),
        ] {
            assert_eq!(status(&door, "GET", "/ui/", &[HERE, ("cookie", &wrong)]), 403, "{wrong}");
        }
        assert_ne!(Secret::new().unwrap().0, Secret::new().unwrap().0);
    }

    #[test]
    fn a_wrong_token_opens_nothing_and_leaves_the_right_one_good() {
        let door = door();
        for wrong in ["/ui/?token=", "/ui/?token=x", "/ui/", "/ui/?token"] {
            assert_eq!(status(&door, "GET", wrong, &[HERE]), 403, "{wrong}");
        }
        let right = format!("/ui/?token={}", door.token.0);
        // Nor does it work elsewhere, or without looking.
        assert_eq!(status(&door, "GET", &right.replace("/ui/", "/1.0"), &[HERE]), 403);
        assert_eq!(status(&door, "HEAD", &right, &[HERE]), 403);
        assert_eq!(status(&door, "GET", &right, &[HERE]), 303);
    }

    #[test]
    fn another_name_for_this_host_is_refused_whatever_it_brings() {
        let (door, cookie) = opened();
        let mine = ("cookie", cookie.as_str());
        for host in [
            "evil.example:8500",
            "127.0.0.1",
            "127.0.0.1:8501",
            "localhost",
            "[::1]:8500",
            "",
            "127.0.0.1:8500.evil",
        ] {
            assert_eq!(status(&door, "GET", "/ui/", &[("host", host), mine]), 421, "{host}");
        }
        assert_eq!(status(&door, "GET", "/ui/", &[mine]), 421);
        assert_eq!(status(&door, "GET", "/ui/", &[HERE, HERE, mine]), 421);
        assert_eq!(status(&door, "GET", "http://evil.example:8500/ui/", &[HERE, mine]), 421);
        assert_eq!(status(&door, "GET", "/ui/", &[("host", "LocalHost:8500"), mine]), 200);
    }

    #[test]
    fn nothing_can_be_changed_and_nothing_else_be_read() {
        let (door, cookie) = opened();
        let mine = ("cookie", cookie.as_str());
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "X"] {
            assert_eq!(status(&door, method, "/1.0/warnings", &[HERE, mine]), 405, "{method}");
        }
        let elsewhere = [
            "/",
            "/1.0/",
            "/1.0/certificates",
            "/1.0/operations",
            "/1.0/events",
            "/1.0/metrics",
            "/1.0/instancesx",
            "/internal/ready",
            "/uix",
            "/ui/../internal/ready",
            "/1.0/instances/../certificates",
            "/1.0/cluster/./x",
        ];
        for path in elsewhere {
            assert_eq!(status(&door, "GET", path, &[HERE, mine]), 404, "{path}");
        }
    }

    #[test]
    fn other_pages_of_this_host_read_nothing() {
        let (door, cookie) = opened();
        let mine = ("cookie", cookie.as_str());
        for site in ["same-site", "cross-site"] {
            let script = [HERE, mine, ("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")];
            assert_eq!(status(&door, "GET", "/1.0/usage", &script), 403, "{site}");
            let mode = ("sec-fetch-mode", "navigate");
            let frame = [HERE, mine, ("sec-fetch-site", site), mode, ("sec-fetch-dest", "iframe")];
            assert_eq!(status(&door, "GET", "/ui/", &frame), 403, "{site}");
            let link = [HERE, mine, ("sec-fetch-site", site), mode, ("sec-fetch-dest", "document")];
            assert_eq!(status(&door, "GET", "/ui/", &link), 200, "{site}");
        }
        assert_eq!(status(&door, "GET", "/ui/", &[HERE, mine, ("sec-fetch-site", "same-origin")]), 200);
    }
}
