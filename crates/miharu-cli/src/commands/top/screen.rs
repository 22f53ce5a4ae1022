//! The terminal: taken for a screen of our own, and given back as it was, whatever happens.

use std::io::{self, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::style::Print;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{execute, queue};
use ratatui::layout::{Position, Rect};

/// Terminals that order text from right to left by themselves (ECMA-48, BDSM) are not to do so: what a Hebrew name is
/// beside must stay in its column. <https://terminal-wg.pages.freedesktop.org/bidi/recommendation/escape-sequences.html>
const EXPLICIT_ORDER: &str = "\u{1b}[8l";
/// And back.
const IMPLICIT_ORDER: &str = "\u{1b}[8h";

/// Whether a screen of ours is shown. It belongs to the process, as the terminal does: a panic gives it back as well.
static TAKEN: AtomicBool = AtomicBool::new(false);

type Out<'a> = &'a mut dyn Write;

/// A screen of our own, given back on drop.
pub(super) struct Screen<'a> {
    terminal: Terminal<CrosstermBackend<Out<'a>>>,
}

impl<'a> Screen<'a> {
    /// Takes the terminal that `out` writes to.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn take(out: Out<'a>) -> io::Result<Self> {
        give_back_on_panic();
        let mut screen = Self { terminal: Terminal::new(CrosstermBackend::new(out))? };
        screen.enter()?;
        Ok(screen)
    }

    /// Draws; only what differs from the last picture is written.
    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(picture).map(drop)
    }

    /// Forgets what is on the screen, so that all of it is drawn anew.
    ///
    /// Not by `Terminal::clear`: that asks the terminal where its cursor is, whose answer would come among the keys.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }

    /// Takes the terminal again, whatever others have done to it meanwhile.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        // What crossterm thinks that the mode is need not be so after a stop: a shell has set its own.
        disable_raw_mode()?;
        let is_taken = TAKEN.swap(true, Ordering::SeqCst);
        enable_raw_mode()?;
        // Where it was stopped by what nobody can catch, its screen was left as it is: entered twice, some terminals would
        // forget where the cursor was before.
        if !is_taken {
            queue!(self.terminal.backend_mut(), EnterAlternateScreen)?;
        }
        execute!(self.terminal.backend_mut(), Print(EXPLICIT_ORDER), Hide)?;
        self.forget()
    }

    /// Gives the terminal back.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        give_back(self.terminal.backend_mut())
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = self.leave();
    }
}

/// Once only: on the screen that a shell has, leaving ours would move the cursor.
fn give_back(out: &mut dyn Write) -> io::Result<()> {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return Ok(());
    }
    let written = leave(out);
    disable_raw_mode()?;
    written
}

fn leave(mut out: &mut dyn Write) -> io::Result<()> {
    queue!(&mut out, Print(IMPLICIT_ORDER), LeaveAlternateScreen, Show)?;
    out.flush()
}

/// What a panic has to say would be lost with our screen. The standard output may be locked by who panics, so that the
/// terminal is opened once more.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let say = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if let Ok(mut terminal) = std::fs::File::options().write(true).open("/dev/tty") {
                let _ = give_back(&mut terminal);
            }
            say(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};

    use super::*;

    /// Tells the test that it is the one inside of the terminal.
    const INSIDE: &str = "MIHARU_TEST_INSIDE_A_TERMINAL";

    fn take_the_screen_and_panic() {
        let mut out = io::stdout();
        let mut screen = Screen::take(&mut out).unwrap();
        screen.draw(|_| panic!("on purpose")).unwrap();
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a panic is seen from outside of the process alone")]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        if std::env::var_os(INSIDE).is_some() {
            return take_the_screen_and_panic();
        }
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let side = || std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let kept = side();
        let mut child = Command::new("setsid")
            .arg("--ctty")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("commands::top::screen::tests::a_panic_gives_the_terminal_back_before_it_is_told")
            .env(INSIDE, "yes")
            .env("RUST_BACKTRACE", "0")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        child.wait().unwrap();
        let modes = tcgetattr(&kept).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
        drop(kept);
        let mut shown = Vec::new();
        // It ends with EIO once nobody has the other side open any more.
        let _ = std::fs::File::from(master).read_to_end(&mut shown);
        let shown = String::from_utf8_lossy(&shown);
        let at = |what: &str| shown.find(what).unwrap_or_else(|| panic!("no {what:?} in {shown:?}"));
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l"), "{shown:?}");
        assert!(at("\u{1b}[?1049l") < at("on purpose"), "{shown:?}");
        assert_eq!(shown.matches("\u{1b}[?1049l").count(), 1, "{shown:?}");
        assert!(at("\u{1b}[?25l") < at("\u{1b}[?25h"), "{shown:?}");
    }
}
