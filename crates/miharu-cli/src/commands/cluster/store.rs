//! Where etcd is, and how to get in: flags, files, and a password that no command line shows.

use std::env;
use std::fs::File;
use std::io::{BufRead, IsTerminal, Read, Write, stdin};

use clap::Args;
use miharu_api::ClusterStore;

use crate::error::Failure;

/// The most that is read of a file, in bytes.
const FILE_LIMIT: u64 = 1024 * 1024;
/// Where the password may be.
const PASSWORD: &str = "MIHARU_STORE_PASSWORD";

/// How to get into etcd.
#[derive(Debug, Args)]
#[command(next_help_heading = "etcd")]
pub(super) struct LoginArgs {
    /// Who signed etcd's certificates, a file in PEM form
    #[arg(long = "store-ca", value_name = "FILE")]
    ca: Option<String>,
    /// The certificate to show to etcd, a file in PEM form
    #[arg(long = "store-cert", value_name = "FILE", requires = "key")]
    cert: Option<String>,
    /// Its key
    #[arg(long = "store-key", value_name = "FILE", requires = "cert")]
    key: Option<String>,
    /// The name to log in to etcd with; the password is in MIHARU_STORE_PASSWORD or in a file
    #[arg(long = "store-user", value_name = "NAME")]
    user: Option<String>,
    /// A file with the password; - is the standard input
    #[arg(long = "store-password-file", value_name = "FILE", requires = "user")]
    password_file: Option<String>,
}

impl LoginArgs {
    /// All that was given, with what is in the files.
    pub(super) fn store(&self, url: &str) -> Result<ClusterStore, Failure> {
        let read = |path: &Option<String>| path.as_deref().map_or_else(|| Ok(String::new()), file);
        let password = match (&self.user, &self.password_file) {
            (None, _) => String::new(),
            (Some(_), Some(path)) if path == "-" => line("the password for etcd")?,
            (Some(_), Some(path)) => first_line(&file(path)?),
            (Some(user), None) => env::var(PASSWORD).map_err(|_| {
                Failure::usage(format!(
                    "the password of {user} is missing: put it into the environment as {PASSWORD}, or into a file and name that with \
                     --store-password-file"
                ))
            })?,
        };
        Ok(ClusterStore {
            url: url.to_owned(),
            ca: read(&self.ca)?,
            certificate: read(&self.cert)?,
            key: read(&self.key)?,
            user: self.user.clone().unwrap_or_default(),
            password,
        })
    }
}

/// What a file that the user named holds.
pub(super) fn file(path: &str) -> Result<String, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::request(format!("{path}: {error}"));
    let mut text = String::new();
    let opened = File::open(path).map_err(|error| wrong(&error))?;
    opened.take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(wrong(&"larger than 1 MiB"));
    }
    Ok(text)
}

/// The next line of the standard input, asked for where a person types it.
pub(super) fn line(what: &str) -> Result<String, Failure> {
    let input = stdin();
    if input.is_terminal() {
        // What cannot be written to the standard error cannot be complained about either.
        let _ = write!(std::io::stderr(), "Please provide {what}: ");
    }
    let mut text = String::new();
    let read = input.lock().take(FILE_LIMIT).read_line(&mut text);
    read.map_err(|error| Failure::request(format!("{what}: {error}")))?;
    Ok(first_line(&text))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_ends_where_its_line_does() {
        assert_eq!(first_line("secret \r\nmore\n"), "secret ");
        assert_eq!(first_line(""), "");
    }
}
