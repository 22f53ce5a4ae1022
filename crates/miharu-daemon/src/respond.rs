//! Answers: the envelope, errors, entity tags, and bodies read within their limits.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION, RETRY_AFTER, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use miharu_api::Envelope;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::negotiate::{self, Encoding};

/// The largest body, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;
/// Answers that are shorter, in bytes, are not worth the work of compressing them.
const COMPRESSED: usize = 1024;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(3);

/// A failure, as the client sees it.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// After how many seconds the same may be asked again, where that is known.
    retry_after: Option<u16>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is too much to do at the moment.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    pub(crate) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "not authorized")
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found")
    }

    pub(crate) fn not_implemented() -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not implemented")
    }

    /// What went wrong inside is for the log; the client learns that it did.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!("a request failed: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

/// What the store refused, as the client sees it; what nobody but the server could mend is an internal error.
impl From<miharu_store::Error> for ApiError {
    fn from(error: miharu_store::Error) -> Self {
        use miharu_store::Error;
        let status = match &error {
            Error::Conflict { .. } => {
                let message =
                    "somebody else made a change at the same moment: look at it again, and try again";
                return Self::new(StatusCode::PRECONDITION_FAILED, message);
            }
            Error::Exists(_) => StatusCode::CONFLICT,
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::Refused(_) => StatusCode::BAD_REQUEST,
            Error::Away(_) | Error::Uncertain(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => return Self::internal(error),
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &Envelope::error(self.status.as_u16(), self.message));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The result of a handler.
pub(crate) type Answer = Result<Response, ApiError>;

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => {
            (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
        }
        Err(error) => {
            tracing::error!("an answer could not be written: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// 200 with a result.
pub(crate) fn ok(metadata: impl Serialize) -> Answer {
    Ok(json(StatusCode::OK, &Envelope::sync(metadata)))
}

/// 200 with a result that may be long: written, and compressed as the client likes it, on a thread that may take its time.
pub(crate) async fn ok_compressed(metadata: impl Serialize + Send + 'static, asked: &HeaderMap) -> Answer {
    let encoding = negotiate::encoding(asked);
    let write = move || {
        let body = serde_json::to_vec(&Envelope::sync(metadata)).map(Bytes::from)?;
        let encoding = if body.len() < COMPRESSED { Encoding::Identity } else { encoding };
        Ok::<_, serde_json::Error>((encoding, encoding.compress(body)))
    };
    let written = tokio::task::spawn_blocking(write).await.map_err(ApiError::internal)?;
    let (encoding, body) = written.map_err(ApiError::internal)?;
    let mut response = (StatusCode::OK, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(encoding) = encoding.header() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Ok(response)
}

/// 200 without one.
pub(crate) fn done() -> Answer {
    Ok(json(StatusCode::OK, &Envelope::empty()))
}

/// 200 with a result and the tag of what may be changed in it.
pub(crate) fn ok_tagged(metadata: impl Serialize, tag: &str) -> Answer {
    let mut response = ok(metadata)?;
    let value = HeaderValue::from_str(&format!("\"{tag}\"")).map_err(ApiError::internal)?;
    response.headers_mut().insert(ETAG, value);
    Ok(response)
}

/// 201 at this path.
pub(crate) fn created(location: &str) -> Answer {
    let mut response = json(StatusCode::CREATED, &Envelope::empty());
    let value = HeaderValue::from_str(location).map_err(ApiError::internal)?;
    response.headers_mut().insert(LOCATION, value);
    Ok(response)
}

/// 201 at this path, with what there is to know only now.
pub(crate) fn created_with(location: &str, metadata: impl Serialize) -> Answer {
    let mut response = json(StatusCode::CREATED, &Envelope::sync(metadata));
    let value = HeaderValue::from_str(location).map_err(ApiError::internal)?;
    response.headers_mut().insert(LOCATION, value);
    Ok(response)
}

/// 202 with the operation at this path.
pub(crate) fn accepted(operation: &str, metadata: impl Serialize) -> Answer {
    let mut response = json(StatusCode::ACCEPTED, &Envelope::background(operation, metadata));
    let value = HeaderValue::from_str(operation).map_err(ApiError::internal)?;
    response.headers_mut().insert(LOCATION, value);
    Ok(response)
}

/// The tag of something that may be changed.
pub(crate) fn tag(of: &impl Serialize) -> Result<String, ApiError> {
    let text = serde_json::to_vec(of).map_err(ApiError::internal)?;
    Ok(miharu_store::fingerprint(&text))
}

/// Checks `If-Match`, if the client sent it: 412 when what it wants to change is not what it saw.
pub(crate) fn check_match(headers: &HeaderMap, tag: &str) -> Result<(), ApiError> {
    let mut wanted = headers.get_all(IF_MATCH).into_iter().peekable();
    if wanted.peek().is_none() {
        return Ok(());
    }
    let matches =
        wanted.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|value| {
            let value = value.trim();
            value == "*" || value.trim_matches('"') == tag
        });
    if matches {
        Ok(())
    } else {
        let message = format!("ETag does not match, the resource is now \"{tag}\"");
        Err(ApiError::new(StatusCode::PRECONDITION_FAILED, message))
    }
}

/// A JSON body, whatever content type the client gave it.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let read = axum::body::to_bytes(request.into_body(), BODY_LIMIT);
        let body = match tokio::time::timeout(BODY_TIME, read).await {
            Err(_) => return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
            Ok(Err(error)) if is_too_long(&error) => {
                return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB"));
            }
            Ok(Err(error)) => return Err(ApiError::bad_request(format!("the body cannot be read: {error}"))),
            Ok(Ok(body)) => body,
        };
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("invalid body: {error}")))
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

/// The last element of a path, unescaped.
#[derive(Debug)]
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        name.map(|Path(name)| Self(name)).map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

/// The parameters of a query, in their order; a name may come more than once.
#[derive(Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of a request's target; `None` where they are malformed.
    pub(crate) fn of(target: &http::Uri) -> Option<Self> {
        Query::try_from_uri(target).ok().map(|Query(pairs)| Self(pairs))
    }

    /// The first value of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// How deep collections are to be shown.
    pub(crate) fn recursion(&self) -> u8 {
        self.get("recursion").and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// The projects asked for: the union of every `project`; `None` where there is none, or only empty ones.
    pub(crate) fn projects(&self) -> Option<BTreeSet<String>> {
        let all = self.get("all-projects").is_some_and(|value| matches!(value, "true" | "1"));
        let named = self.0.iter().filter(|(name, value)| name == "project" && !value.is_empty());
        let named: BTreeSet<String> = named.map(|(_, value)| value.clone()).collect();
        (!all && !named.is_empty()).then_some(named)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        query.map(|Query(pairs)| Self(pairs)).map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

/// A path of the API with this last element, escaped.
pub(crate) fn path(collection: &str, name: &str) -> String {
    use std::fmt::Write;
    let mut path = format!("/1.0/{collection}/");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@:".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_matches_quoted_bare_or_in_a_list() {
        let headers = |value: &str| HeaderMap::from_iter([(IF_MATCH, value.parse().unwrap())]);
        assert!(check_match(&HeaderMap::new(), "a").is_ok());
        for value in ["\"a\"", "a", "*", "\"b\", \"a\""] {
            assert!(check_match(&headers(value), "a").is_ok(), "{value}");
        }
        assert_eq!(check_match(&headers("\"b\""), "a").unwrap_err().status, StatusCode::PRECONDITION_FAILED);
    }

    #[test]
    fn projects_are_a_union_and_an_empty_one_is_none() {
        let parameters = |pairs: &[(&str, &str)]| {
            Parameters(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(parameters(&[("project", "")]).projects(), None);
        let two = parameters(&[("project", "a"), ("project", ""), ("project", "b")]);
        assert_eq!(two.projects(), Some(BTreeSet::from(["a".to_owned(), "b".to_owned()])));
        assert_eq!(parameters(&[("project", "a"), ("all-projects", "true")]).projects(), None);
    }

    #[test]
    fn a_name_is_escaped_in_a_path() {
        assert_eq!(path("instances", "pod/c 1%"), "/1.0/instances/pod%2Fc%201%25");
    }
}
