//! `miharu-agent`: reads the command line, starts a thread for each way on which the host can ask, and keeps them going.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use miharu_agent::options::{self, Action, Transports};
use miharu_agent::report::Reporter;
use miharu_agent::{virtio, vsock};
use miharu_linux::Roots;

/// The pause before a way that failed is tried again: its device or kernel module may appear at any time.
const PAUSE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let outcome = match options::parse(std::env::args_os().skip(1)) {
        Ok(Action::Serve(transports)) => serve(transports),
        Ok(Action::Once) => once(),
        Ok(Action::Help) => say(options::HELP),
        Ok(Action::Version) => say(concat!("miharu-agent ", env!("MIHARU_VERSION"), "\n")),
        Err(mistake) => {
            log(&format!("{mistake}; --help tells more"));
            return ExitCode::from(2);
        }
    };
    if let Err(error) = outcome {
        log(&error.to_string());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Serves until the process is ended.
fn serve(transports: Transports) -> io::Result<()> {
    let roots = Roots::default();
    let reporter = Arc::new(Reporter::new(roots.clone()));
    let of_vsock = Arc::clone(&reporter);
    let vsock = transports.vsock.map(|port| {
        std::thread::Builder::new()
            .name("listener".to_owned())
            .stack_size(256 << 10)
            .spawn(move || keep("vsock", || vsock::serve(port, &of_vsock)))
    });
    if let Some(port) = transports.virtio_serial {
        keep("virtio-serial", || virtio::serve(&roots, &port, &reporter));
    }
    if let Some(thread) = vsock.transpose()? {
        // It ends as little as the other one.
        let _ = thread.join();
    }
    Ok(())
}

/// Starts a way to ask again and again, and says once why it does not work.
fn keep(name: &str, mut serve: impl FnMut() -> io::Result<()>) {
    let mut last = String::new();
    loop {
        let why = serve().map_or_else(|error| error.to_string(), |()| "ended".to_owned());
        if why != last {
            log(&format!("{name}: {why}; looking again every {} seconds", PAUSE.as_secs()));
            last = why;
        }
        std::thread::sleep(PAUSE);
    }
}

fn once() -> io::Result<()> {
    let mut report = serde_json::to_string_pretty(&Reporter::new(Roots::default()).report())?;
    report.push('\n');
    say(&report)
}

fn say(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

/// The system's log reads what a service writes there. Where that fails there is nobody left to tell.
fn log(text: &str) {
    let _ = writeln!(io::stderr().lock(), "miharu-agent: {text}");
}
