//! A terminal of one's own: a pseudo-terminal with a program in it, what it shows, and keys to press.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::scratch::{Entry, Note};
use crate::shell;

/// A running program and its terminal; it is killed on drop.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    shown: Arc<Mutex<Shown>>,
    reader: JoinHandle<()>,
    _note: Note,
}

/// What the terminal got, as it came and as it is seen.
struct Shown {
    bytes: Vec<u8>,
    parser: vt100::Parser,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parser.screen().contents())
    }
}

impl Terminal {
    /// Starts the program that `prepare` makes of a command in a terminal of this size; `prepare` gets a command to which it
    /// adds the program, its arguments and its environment.
    ///
    /// # Errors
    /// When there is no terminal to be had, or the program cannot be started.
    pub fn start(rows: u16, columns: u16, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        tcsetwinsize(&master, size(rows, columns))?;
        let name = ptsname(&master, Vec::new())?;
        let side =
            || File::options().read(true).write(true).open(Path::new(name.to_str().unwrap_or_default()));
        // A session of its own whose terminal this is: what a login does.
        let mut command = Command::new("setsid");
        command.arg("--ctty").env("TERM", "xterm-256color").env("LANG", "C.UTF-8").env_remove("LC_ALL");
        command.env_remove("NO_COLOR").stdin(side()?).stdout(side()?).stderr(side()?);
        prepare(&mut command);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let note = Entry::Process(child.id()).note()?;
        drop(command);
        let master = File::from(master);
        let shown = Shown { bytes: Vec::new(), parser: vt100::Parser::new(lines(rows), lines(columns), 0) };
        let shown = Arc::new(Mutex::new(shown));
        let (mut reader, seen) = (master.try_clone()?, Arc::clone(&shown));
        let reading = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO once nobody has the other side open any more.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let mut shown = seen.lock().unwrap_or_else(PoisonError::into_inner);
                let bytes = bytes.get(..count).unwrap_or_default();
                shown.bytes.extend_from_slice(bytes);
                shown.parser.process(bytes);
            }
        });
        Ok(Self { master, child, shown, reader: reading, _note: note })
    }

    /// The process that was started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    /// Makes it larger or smaller, as who drags a window's corner does.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.look(|shown| shown.parser.screen_mut().set_size(lines(rows), lines(columns)));
        Ok(tcsetwinsize(&self.master, size(rows, columns))?)
    }

    /// What is seen, line by line.
    #[must_use]
    pub fn text(&self) -> String {
        self.look(|shown| shown.parser.screen().contents())
    }

    /// Everything that was written to it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.look(|shown| shown.bytes.clone())
    }

    /// Asks about what is seen: colours, modes, the cursor.
    pub fn screen<T>(&self, ask: impl FnOnce(&vt100::Screen) -> T) -> T {
        self.look(|shown| ask(shown.parser.screen()))
    }

    /// Waits until what is seen is as wanted.
    ///
    /// # Errors
    /// When it does not get so; the error carries what is seen instead.
    pub fn wait(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> Result<String> {
        let seen = || Some(self.text());
        shell::wait_for(what, Duration::from_secs(15), || seen().filter(|text| wanted(text)))
            .with_context(|| format!("instead of {what}:\n{}", self.text()))
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        let ended =
            shell::wait_for("the program's end", Duration::from_secs(10), || child.try_wait().ok()?);
        // What it wrote at last is on its way to the screen for a moment longer; others may have the terminal open still.
        let _ = shell::wait_for("the last words", Duration::from_secs(1), || {
            self.reader.is_finished().then_some(())
        });
        match ended {
            Ok(status) => Ok(status),
            Err(error) => bail!("{error}:\n{}", self.text()),
        }
    }

    /// What is seen, as a picture.
    #[must_use]
    pub fn svg(&self) -> String {
        self.screen(svg)
    }

    fn look<T>(&self, ask: impl FnOnce(&mut Shown) -> T) -> T {
        ask(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal has a line at least.
fn lines(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN)
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// How large a character is in a picture, in pixels.
const CELL: (u16, u16) = (8, 17);

/// A picture of a screen: a text for each run of characters that look alike, each where the terminal has it.
fn svg(screen: &vt100::Screen) -> String {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let (width, height) = (columns * CELL.0 + 16, rows * CELL.1 + 16);
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#1c1f26\"/>\n"
    );
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            let Some(first) = screen.cell(row, column) else { break };
            let (from, look) = (column, look(first));
            let mut text = String::new();
            while let Some(cell) = screen.cell(row, column).filter(|cell| self::look(cell) == look) {
                if !cell.is_wide_continuation() {
                    text.push_str(if cell.has_contents() { cell.contents() } else { " " });
                }
                column += 1;
            }
            run(&mut picture, &look, &text, (row, from, column));
        }
    }
    picture + "</svg>\n"
}

/// How a character looks: its colour, the one behind it, and what else.
#[derive(PartialEq)]
struct Look {
    colour: &'static str,
    behind: Option<&'static str>,
    bold: bool,
    underline: bool,
}

fn look(cell: &vt100::Cell) -> Look {
    let colour = match cell.fgcolor() {
        vt100::Color::Idx(1) => "#ff7b72",
        vt100::Color::Idx(2) => "#7ee787",
        vt100::Color::Idx(3) => "#e3b341",
        _ if cell.dim() => "#8b949e",
        _ => "#dfe3ea",
    };
    let (colour, behind) = if cell.inverse() { ("#1c1f26", Some(colour)) } else { (colour, None) };
    Look { colour, behind, bold: cell.bold(), underline: cell.underline() }
}

fn run(picture: &mut String, look: &Look, text: &str, (row, from, to): (u16, u16, u16)) {
    let (x, y) = (8 + from * CELL.0, 8 + row * CELL.1);
    let width = (to - from) * CELL.0;
    if let Some(behind) = look.behind {
        *picture += &format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{}\" fill=\"{behind}\"/>\n",
            CELL.1
        );
    }
    // Blanks at the ends, which a browser drops, would make it stretch what is between them.
    let blanks = |text: &str| u16::try_from(text.len() - text.trim_start().len()).unwrap_or(0);
    let (before, after) = (blanks(text), blanks(&text.chars().rev().collect::<String>()));
    if text.trim().is_empty() {
        return;
    }
    let (x, width) = (x + before * CELL.0, width - (before + after) * CELL.0);
    let text = text.trim();
    let weight = if look.bold { " font-weight=\"bold\"" } else { "" };
    let line = if look.underline { " text-decoration=\"underline\"" } else { "" };
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Of several blanks in a row a browser keeps one, unless they are such as do not break a line.
    let text = text.replace(' ', "\u{a0}");
    *picture += &format!(
        "<text x=\"{x}\" y=\"{}\" fill=\"{}\" textLength=\"{width}\"{weight}{line}>{text}</text>\n",
        y + 13,
        look.colour
    );
}
