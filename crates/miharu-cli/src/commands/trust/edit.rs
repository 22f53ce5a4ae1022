//! `miharu config trust edit`: an entry of the trust store as YAML, changed by hand or by a program.

use std::io::{IsTerminal as _, Read as _, Write as _};

use http::{Method, StatusCode};
use miharu_api::{Certificate, CertificatePut};

use super::super::Context;
use super::absent;
use crate::client::Ask;
use crate::error::Failure;

/// The most that is read as an entry, in bytes.
const LIMIT: u64 = 1 << 20;
const HELP: &str = "\
# This is an entry of the trust store, as YAML. Lines that begin with '#' are left out.
# name, description, type, restricted and projects can be changed.

";

/// Changes the entry at this path.
pub(super) async fn run(context: &Context<'_>, path: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(LIMIT).read_to_string(&mut text);
        read.map_err(|error| Failure::usage(format!("cannot read the standard input: {error}")))?;
        return put(context, path, &text, None).await;
    }
    let reply = context.client.send(Ask::new(Method::GET, path)).await?;
    let entry: Certificate = reply.metadata().map_err(|failure| absent(failure, reply.status))?;
    let yaml = serde_norway::to_string(&entry)
        .map_err(|error| Failure::request(format!("the server's answer cannot be printed: {error}")))?;
    let before = format!("{HELP}{yaml}");
    let after = in_editor(&before)?;
    if after == before {
        return Ok(());
    }
    put(context, path, &after, reply.etag.as_deref()).await
}

/// Sends what the entry is to be; with a tag, only if nobody else has changed it.
async fn put(context: &Context<'_>, path: &str, text: &str, etag: Option<&str>) -> Result<(), Failure> {
    let wrong = |error| Failure::usage(format!("this is no entry of the trust store: {error}"));
    let entry: CertificatePut = serde_norway::from_str(text).map_err(wrong)?;
    let reply = context.client.send(Ask::new(Method::PUT, path).json(&entry)?.if_match(etag)).await?;
    reply.check().map_err(|failure| match reply.status {
        StatusCode::PRECONDITION_FAILED => Failure::request(format!(
            "{failure}\nSomebody else changed the entry at the same moment, and nothing was changed: run this again."
        )),
        status => absent(failure, status),
    })
}

/// Lets the user change a text in the editor of `VISUAL` or `EDITOR`.
#[expect(
    clippy::disallowed_methods,
    reason = "the ban is for the daemon; an editor is a program of the user's choice"
)]
fn in_editor(text: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::request(format!("the entry cannot be edited: {error}"));
    let mut file = tempfile::Builder::new().prefix("miharu-").suffix(".yaml").tempfile().map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = variable("VISUAL").or_else(|| variable("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // An editor may be given with arguments, as in "code --wait": the shell parts them.
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(file.path())
        .status()
        .map_err(failed)?;
    if !status.success() {
        return Err(Failure::request(format!(
            "nothing was changed: the editor '{editor}' ended with {status}"
        )));
    }
    // Editors that write anew replace the file, so it is opened by its name.
    std::fs::read_to_string(file.path()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_as_it_is_shown_can_be_put_back() {
        let entry = Certificate {
            name: "x".to_owned(),
            certificate_type: "metrics".to_owned(),
            restricted: true,
            projects: vec!["lxc".to_owned()],
            fingerprint: "ab".to_owned(),
            bearer_token: true,
            ..Certificate::default()
        };
        let text = format!("{HELP}{}", serde_norway::to_string(&entry).unwrap());
        let put: CertificatePut = serde_norway::from_str(&text).unwrap();
        assert_eq!((put.name.as_str(), put.certificate_type.as_str()), ("x", "metrics"));
        assert_eq!((put.restricted, put.projects), (true, vec!["lxc".to_owned()]));
        assert!(serde_norway::from_str::<CertificatePut>("- a list").is_err());
    }
}
