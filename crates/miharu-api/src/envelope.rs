//! The envelope around every JSON answer.

use serde::{Deserialize, Serialize};

/// What kind of answer an envelope holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The work is done, `metadata` is its result.
    Sync,
    /// The work goes on, `operation` tells where to ask for it.
    Async,
    /// It failed, `error` and `error_code` tell why.
    Error,
}

/// An answer: `metadata` is a resource's own type, or [`serde_json::Value`] where it does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// What kind of answer it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// `Success`, or empty for an error.
    #[serde(default)]
    pub status: String,
    /// 200 for success, 100 for work in progress, 0 for an error.
    #[serde(default)]
    pub status_code: u16,
    /// The path of the operation, for work in progress.
    #[serde(default)]
    pub operation: String,
    /// The HTTP status of an error, else 0.
    #[serde(default)]
    pub error_code: u16,
    /// What went wrong, for people.
    #[serde(default)]
    pub error: String,
    /// The result.
    pub metadata: Option<T>,
}

impl<T> Envelope<T> {
    /// Work that is done.
    #[must_use]
    pub fn sync(metadata: T) -> Self {
        Self {
            kind: Kind::Sync,
            status: "Success".to_owned(),
            status_code: 200,
            operation: String::new(),
            error_code: 0,
            error: String::new(),
            metadata: Some(metadata),
        }
    }

    /// Work that goes on at this path, and what it is.
    #[must_use]
    pub fn background(operation: impl Into<String>, metadata: T) -> Self {
        Self {
            kind: Kind::Async,
            status: "Operation created".to_owned(),
            status_code: 100,
            operation: operation.into(),
            ..Self::sync(metadata)
        }
    }
}

impl Envelope<()> {
    /// A failure with the HTTP status `code` and a message for people.
    #[must_use]
    pub fn error(code: u16, message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Error,
            status: String::new(),
            status_code: 0,
            operation: String::new(),
            error_code: code,
            error: message.into(),
            metadata: None,
        }
    }

    /// Work that is done and has no result.
    #[must_use]
    pub fn empty() -> Self {
        Self { metadata: None, ..Self::sync(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_shape_that_clients_know() {
        let sync = serde_json::to_string(&Envelope::sync(vec!["/1.0"])).unwrap();
        assert_eq!(
            sync,
            r#"{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":["/1.0"]}"#
        );
        let error = serde_json::to_string(&Envelope::error(403, "not authorized")).unwrap();
        assert_eq!(
            error,
            r#"{"type":"error","status":"","status_code":0,"operation":"","error_code":403,"error":"not authorized","metadata":null}"#
        );
    }

    #[test]
    fn an_error_of_incus_is_read() {
        let body = r#"{"type":"error","error_code":404,"error":"not found","metadata":null}"#;
        let read: Envelope<serde_json::Value> = serde_json::from_str(body).unwrap();
        assert_eq!((read.kind, read.error_code, read.error.as_str()), (Kind::Error, 404, "not found"));
    }
}
