//! A line that says what is waited for: on the standard error of a terminal, where it takes longer than a moment.

use std::cell::Cell;
use std::future::Future;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is over so soon needs no words.
const MOMENT: Duration = Duration::from_millis(800);
/// How often the line shows that it is alive.
const BEAT: Duration = Duration::from_millis(120);

/// Shows one line at a time, or none ever.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Set while a line is shown already, and for good where none is wanted.
    is_silent: Cell<bool>,
}

impl Progress {
    /// Lines where a person sees them: `--quiet`, `--debug` and pipes have none.
    pub(crate) fn at_terminal() -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Self { is_silent: Cell::new(is_dumb || !std::io::stderr().is_terminal()) }
    }

    /// No lines.
    pub(crate) fn none() -> Self {
        Self { is_silent: Cell::new(true) }
    }

    /// No lines from now on: somebody else draws.
    pub(crate) fn hush(&self) {
        self.is_silent.set(true);
    }

    /// Waits for `what`, and says so if it takes long.
    pub(crate) async fn during<T>(&self, words: &'static str, what: impl Future<Output = T>) -> T {
        if self.is_silent.get() {
            return what.await;
        }
        let mut what = std::pin::pin!(what);
        self.is_silent.set(true);
        let result = tokio::select! {
            result = &mut what => result,
            () = tokio::time::sleep(MOMENT) => {
                let line = line(words);
                let result = what.await;
                line.finish_and_clear();
                result
            }
        };
        self.is_silent.set(false);
        result
    }
}

fn line(words: &'static str) -> ProgressBar {
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // The template is ours and sound; were it not, indicatif's own would do.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        line.set_style(style.tick_chars("|/-\\ "));
    }
    line.set_message(words);
    line.enable_steady_tick(BEAT);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_waited_for_comes_whether_there_is_a_line_or_not() {
        for progress in [Progress::none(), Progress { is_silent: Cell::new(false) }] {
            let slow = async {
                tokio::time::sleep(MOMENT * 2).await;
                // A request inside of what is waited for shows no second line.
                assert!(progress.is_silent.get());
                progress.during("nothing", async { 7 }).await
            };
            assert_eq!(progress.during("a test", slow).await, 7);
            assert_eq!(progress.during("a test", async { 8 }).await, 8);
        }
    }

    #[tokio::test]
    async fn once_hushed_there_is_no_line_again() {
        let progress = Progress { is_silent: Cell::new(false) };
        progress.during("a test", async {}).await;
        assert!(!progress.is_silent.get());
        progress.hush();
        progress.during("a test", async {}).await;
        assert!(progress.is_silent.get());
    }
}
