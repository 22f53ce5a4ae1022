//! What can go wrong, sorted by the exit code that follows.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line cannot be meant as it stands: the server was not asked. Exit code 2.
    Usage(String),
    /// The server could not be reached, or refused. Exit code 1.
    Request(String),
    /// The answer could not be written. Exit code 1, or 0 and no word when a reader such as `head` has seen enough.
    Output(io::Error),
    /// A signal of this number ended it, in good order. Exit code 128 and that, as shells have it.
    Signal(i32),
}

impl Failure {
    /// A usage failure.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// A failed request.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::Request(message.into())
    }

    /// The code that the program ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Request(_) | Self::Output(_) => ExitCode::FAILURE,
            Self::Signal(number) => ExitCode::from(u8::try_from(128 + number).unwrap_or(1)),
        }
    }

    /// Whether the user is to be told: a closed pipe is no error of anybody's, and a signal was sent by somebody.
    pub(crate) fn is_worth_saying(&self) -> bool {
        match self {
            Self::Output(error) => error.kind() != io::ErrorKind::BrokenPipe,
            Self::Signal(_) => false,
            Self::Usage(_) | Self::Request(_) => true,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Request(message) => f.write_str(message),
            Self::Output(error) => write!(f, "cannot write the output: {error}"),
            Self::Signal(number) => write!(f, "ended by signal {number}"),
        }
    }
}

impl From<io::Error> for Failure {
    /// Only writes to the output use `?` on an I/O error; every other one is described where it happens.
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
