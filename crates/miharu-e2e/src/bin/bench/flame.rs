//! A flame graph of the fresh scrape: where miharud and, on its behalf, the kernel spend their time.
//!
//! `perf` records stacks, and the picture is drawn here: it is small, has no script in it, and leaves out what is too narrow to be
//! seen. A pointer that rests on a frame shows its whole name and its share.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::{interrupt, scratch, shell};

use crate::book::Book;
use crate::miharud::Subject;

/// How long is recorded.
const RECORD: Duration = Duration::from_secs(10);
const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 15.0;
/// A frame with a smaller share is left out, with all above it.
const SMALLEST: f64 = 0.004;

/// Records and draws `flame.svg` into a folder; nothing but a remark where `perf` cannot record.
///
/// # Errors
/// When miharud fails, or the picture cannot be written.
pub(crate) fn run(book: &mut Book, containers: u32, out: &Path) -> Result<()> {
    if !shell::exists("perf") {
        book.missing("flame graph", "perf is not installed");
        return Ok(());
    }
    let mut subject = Subject::start()?;
    subject.set("metrics.cache_seconds", "0")?;
    subject.sample(3)?;
    let data = scratch::dir("perf")?.join("data");
    let mut command = Command::new("perf");
    // Stacks are unwound by the tables of the program, as it has no frame pointers; a clock, as many machines let nobody count
    // cycles.
    command.args(["record", "-q", "-e", "cpu-clock", "-F", "199", "--call-graph", "dwarf,32768"]);
    command.args(["-p", &subject.daemon.pid().to_string(), "-o"]).arg(&data);
    command.args(["--", "sleep", &RECORD.as_secs().to_string()]);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut perf = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("perf")?;
    let started = Instant::now();
    while started.elapsed() < RECORD {
        interrupt::check()?;
        subject.sample(1)?;
    }
    perf.wait()?;
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"]).arg(&data);
    let Ok(text) = shell::output(&mut script) else {
        book.missing("flame graph", "perf cannot record here");
        return Ok(());
    };
    let root = fold(&text);
    if root.samples == 0 {
        book.missing("flame graph", "perf has recorded nothing");
        return Ok(());
    }
    book.profile = root.heaviest();
    for (name, share) in &book.profile {
        println!("  {share:5.1} %  {name}");
    }
    let title = format!(
        "miharud, fresh scrapes of {containers} containers over the unix socket: {} samples of CPU time, kernel in blue",
        root.samples
    );
    let path = out.join("flame.svg");
    fs::write(&path, draw(&root, &title)).with_context(|| path.display().to_string())
}

/// A function as it was called from those below it.
#[derive(Debug, Default)]
struct Frame {
    samples: u64,
    /// Those that were in the function itself.
    own: u64,
    kernel: bool,
    above: BTreeMap<String, Frame>,
}

impl Frame {
    /// The functions that most of the time is spent in themselves, with their shares in per cent.
    fn heaviest(&self) -> Vec<(String, f64)> {
        let mut own: BTreeMap<&str, u64> = BTreeMap::new();
        let mut frames: Vec<(&str, &Self)> = vec![("", self)];
        while let Some((name, frame)) = frames.pop() {
            *own.entry(name).or_default() += frame.own;
            frames.extend(frame.above.iter().map(|(name, frame)| (name.as_str(), frame)));
        }
        let mut own: Vec<(&str, u64)> = own.into_iter().collect();
        own.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
        own.into_iter()
            .take(15)
            .map(|(name, samples)| (name.to_owned(), (share(samples, self.samples) * 1e3).round() / 10.0))
            .collect()
    }

    fn depth(&self, least: u64) -> u32 {
        let above = self.above.values().filter(|frame| frame.samples >= least);
        1 + above.map(|frame| frame.depth(least)).max().unwrap_or(0)
    }
}

/// Puts the stacks that `perf script` shows on top of each other, the thread's name at the bottom.
fn fold(text: &str) -> Frame {
    let mut root = Frame::default();
    for sample in text.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some(thread) = lines.next() else { continue };
        let mut stack: Vec<(String, bool)> = lines.filter_map(frame).collect();
        if stack.is_empty() {
            continue;
        }
        stack.push((thread.trim().to_owned(), false));
        root.samples += 1;
        let mut at = &mut root;
        for (name, kernel) in stack.into_iter().rev() {
            at = at.above.entry(name).or_default();
            at.samples += 1;
            at.kernel = kernel;
        }
        at.own += 1;
    }
    root
}

/// A line of a stack, `ADDRESS NAME (FILE)`: its name without the hash that the compiler adds, and whether it is the kernel's.
fn frame(line: &str) -> Option<(String, bool)> {
    let (_, rest) = line.trim().split_once(' ')?;
    let (name, file) = rest.rsplit_once(" (")?;
    let name = match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 => name,
        _ => name,
    };
    let file = file.trim_end_matches(')');
    if name == "[unknown]" {
        return Some((format!("[{}]", file.rsplit('/').next().unwrap_or(file)), false));
    }
    Some((name.to_owned(), file.starts_with("[kernel")))
}

#[allow(clippy::cast_precision_loss, reason = "thousands of samples")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn draw(root: &Frame, title: &str) -> String {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "thousands of samples"
    )]
    let least = (root.samples as f64 * SMALLEST).ceil() as u64;
    let rows = f64::from(root.depth(least));
    let height = (rows + 1.5) * HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"10\">\n\
         <style>rect{{stroke:#fff;stroke-width:.5;fill:#f2b66b}}.k rect{{fill:#8fb7dd}}</style>\n\
         <text x=\"4\" y=\"11\" font-size=\"12\">{}</text>\n",
        escape(title)
    );
    rows_above(root, root.samples, 0.0, height - HEIGHT, least, &mut svg);
    svg += "</svg>\n";
    svg
}

fn rows_above(frame: &Frame, whole: u64, left: f64, top: f64, least: u64, svg: &mut String) {
    let mut left = left;
    for (name, above) in &frame.above {
        let width = share(above.samples, whole) * WIDTH;
        if above.samples >= least {
            let class = if above.kernel { " class=\"k\"" } else { "" };
            let percent = share(above.samples, whole) * 100.0;
            *svg += &format!(
                "<g{class}><title>{} {percent:.1} %</title><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>",
                escape(name)
            );
            if let Some(shown) = fitting(name, width) {
                *svg += &format!(
                    "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    left + 2.0,
                    top + 11.0,
                    escape(&shown)
                );
            }
            *svg += "</g>\n";
            rows_above(above, whole, left, top - HEIGHT, least, svg);
        }
        left += width;
    }
}

/// As much of a name's end as its frame has room for: the end is the function, the beginning its crate.
fn fitting(name: &str, width: f64) -> Option<String> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a width of the picture")]
    let room = ((width - 4.0).max(0.0) / 6.1) as usize;
    let length = name.chars().count();
    if length <= room {
        return Some(name.to_owned());
    }
    (room >= 4).then(|| format!("…{}", name.chars().skip(length + 1 - room).collect::<String>()))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "miharud \n\tffffffff816b7900 vfs_read ([kernel.kallsyms])\n\
        \t           fce67 miharu_linux::read::Buffer::read_at::h0123456789abcdef (/opt/miharud)\n\
        \t           184a8 [unknown] (/opt/miharud)\n\n\
        miharud \n\t           fce67 <A as B<C>>::x (/opt/miharud)\n\t           184a8 [unknown] (/opt/miharud)\n\n";

    #[test]
    fn stacks_are_put_on_top_of_each_other() {
        let root = fold(SCRIPT);
        assert_eq!(root.samples, 2);
        let thread = root.above.get("miharud").unwrap();
        let unknown = thread.above.get("[miharud]").unwrap();
        assert_eq!((unknown.samples, unknown.own), (2, 0));
        let read = unknown.above.get("miharu_linux::read::Buffer::read_at").unwrap();
        assert!(read.above.get("vfs_read").unwrap().kernel && !read.kernel);
        assert_eq!(root.heaviest().first().unwrap().1, 50.0);
    }

    #[test]
    fn the_picture_is_whole_and_its_names_are_escaped() {
        let svg = draw(&fold(SCRIPT), "a < b");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<g").count(), svg.matches("</g>").count());
        assert_eq!(svg.matches("<rect").count(), 5);
        assert!(svg.contains("&lt;A as B&lt;C&gt;&gt;::x") && svg.contains("a &lt; b"), "{svg}");
    }

    #[test]
    fn names_are_cut_at_their_beginning() {
        assert_eq!(fitting("abcdefgh", 1000.0).as_deref(), Some("abcdefgh"));
        assert_eq!(fitting("abcdefgh", 35.0).as_deref(), Some("…efgh"));
        assert_eq!(fitting("abcdefgh", 10.0), None);
    }
}
