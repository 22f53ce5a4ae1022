//! Requests that another site's page made a browser send: it would show the certificate of whoever sits before it.
//!
//! Browsers tell it in `Sec-Fetch-Site`, <https://www.w3.org/TR/fetch-metadata/>, and those that do not, in `Origin`, RFC 6454,
//! wherever a request changes something or opens a WebSocket. No answer allows another origin to read it (there is no CORS).

use axum::extract::Request;
use http::header::{HOST, HeaderName, ORIGIN, UPGRADE};
use http::{HeaderMap, Method};

use crate::listen::{Entrance, Peer};

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Whether it is to be refused.
pub(crate) fn is_foreign(request: &Request) -> bool {
    let headers = request.headers();
    let is_of_another_site =
        headers.get_all(&SITE).into_iter().any(|site| site == "cross-site" || site == "same-site");
    if is_of_another_site && !is_link_to_page(request) {
        return true;
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let is_local = request.extensions().get::<Peer>().is_some_and(|peer| peer.entrance == Entrance::Unix);
    // Clients other than browsers send what they like as the origin of a WebSocket on the unix socket, where no browser is.
    let matters = if reads { headers.contains_key(UPGRADE) && !is_local } else { true };
    matters && headers.get_all(ORIGIN).into_iter().any(|origin| !is_own(origin.to_str().ok(), request))
}

/// Somebody follows a link to the web page: a document of its own, which no other page can look into.
fn is_link_to_page(request: &Request) -> bool {
    let (headers, path) = (request.headers(), request.uri().path());
    let is = |name: &HeaderName, word: &str| headers.get(name).is_some_and(|value| value == word);
    let is_page = path == "/ui" || path.starts_with("/ui/");
    is_page && *request.method() == Method::GET && is(&MODE, "navigate") && is(&DESTINATION, "document")
}

/// Whether an origin is this server, under the name by which the request calls it.
fn is_own(origin: Option<&str>, request: &Request) -> bool {
    let Some((scheme, origin)) = origin.and_then(|origin| origin.split_once("://")) else { return false };
    let called = request.uri().authority().map(http::uri::Authority::as_str);
    let Some(called) = called.or_else(|| host(request.headers())) else { return false };
    let plain = |name: &str| match scheme {
        // Browsers leave it out, and others may not.
        "https" => name.strip_suffix(":443").unwrap_or(name).to_ascii_lowercase(),
        _ => name.to_ascii_lowercase(),
    };
    plain(origin) == plain(called)
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn is_refused(entrance: Entrance, method: &str, path: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer { entrance, certificate: None });
        is_foreign(&request)
    }

    #[test]
    fn what_another_site_sends_is_refused() {
        let https = |method, headers: &[_]| is_refused(Entrance::Https, method, "/1.0", headers);
        let host = ("host", "miharu.example:8443");
        for site in ["cross-site", "same-site"] {
            assert!(https("GET", &[host, ("sec-fetch-site", site)]), "{site}");
        }
        for site in ["same-origin", "none"] {
            assert!(!https("GET", &[host, ("sec-fetch-site", site)]), "{site}");
        }
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            for origin in
                ["https://evil.example", "null", "https://miharu.example", "miharu.example:8443", ""]
            {
                assert!(https(method, &[host, ("origin", origin)]), "{method} from {origin}");
            }
            for origin in ["https://miharu.example:8443", "https://MIHARU.example:8443"] {
                assert!(!https(method, &[host, ("origin", origin)]), "{method} from {origin}");
            }
            assert!(!https(method, &[host]), "a client that is no browser");
            assert!(!https(method, &[("host", "a"), ("origin", "https://a:443")]));
            // HTTP/2 has the name in the request itself.
            let path = "https://miharu.example:8443/1.0";
            let origin = ("origin", "https://miharu.example:8443");
            assert!(!is_refused(Entrance::Https, method, path, &[origin]));
            assert!(is_refused(Entrance::Unix, method, "/1.0", &[host, ("origin", "https://evil.example")]));
        }
        assert!(!https("GET", &[host, ("origin", "https://evil.example")]), "it may not read the answer");
    }

    #[test]
    fn another_site_opens_no_websocket() {
        let headers = [("host", "a:8443"), ("upgrade", "websocket"), ("origin", "https://evil.example")];
        assert!(is_refused(Entrance::Https, "GET", "/1.0/events", &headers));
        assert!(!is_refused(Entrance::Unix, "GET", "/1.0/events", &headers));
        let own = [("host", "a:8443"), ("upgrade", "websocket"), ("origin", "https://a:8443")];
        assert!(!is_refused(Entrance::Https, "GET", "/1.0/events", &own));
    }

    #[test]
    fn a_link_leads_to_the_page_and_nowhere_else() {
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        let follow = |method, path| !is_refused(Entrance::Https, method, path, &link);
        assert!(follow("GET", "/ui/") && follow("GET", "/ui"));
        assert!(!follow("GET", "/1.0") && !follow("GET", "/uix") && !follow("POST", "/ui/"));
        let frame =
            [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert!(is_refused(Entrance::Https, "GET", "/ui/", &frame));
    }
}
