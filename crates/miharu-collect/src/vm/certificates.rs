//! The certificates that Incus and LXD keep beside their machines, read by threads that hold nothing, as the file system that they are on
//! may hang. However many machines lie there, a few threads hang with it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use miharu_linux::Roots;
use miharu_linux::apart::{Answer, Asked, Asker, Question};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// The certificate that the agent shows, and those with which it is asked.
pub(super) const SERVER: &str = "agent.crt";
pub(super) const CLIENT: &str = "agent-client.crt";
pub(super) const CLIENT_KEY: &str = "agent-client.key";

/// The longest of them, bytes; certificates have a kilobyte.
const MAX_CERTIFICATE: u64 = 64 << 10;

/// How long they are waited for. They are on this host. Unit tests, in which they do not hang, run on machines that are busy for longer.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 500 });

/// The most machines whose certificates are read at once, which are the most threads that hang.
const MAX_READING: usize = 8;

/// Those of all machines.
pub(super) static ALL: Certificates = Certificates::new();

/// What reads them, and what hangs in that.
#[derive(Debug)]
pub(super) struct Certificates {
    places: Semaphore,
    late: Mutex<Vec<Late>>,
}

/// A reading that was given up. It keeps its place until its thread comes back, whether anybody still asks for it or not.
#[derive(Debug)]
struct Late {
    directory: PathBuf,
    answer: Receiver<Answer>,
    _place: SemaphorePermit<'static>,
}

impl Certificates {
    pub(super) const fn new() -> Self {
        Self { places: Semaphore::const_new(MAX_READING), late: Mutex::new(Vec::new()) }
    }

    /// The contents of the three files of this directory of the host's, until `until` at most.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where there are none, [`io::ErrorKind::TimedOut`] where they are not there in time, which may be this
    /// host's load; else what is wrong on this host: one of them cannot be read, or is still not there since an earlier question.
    pub(super) async fn read(
        &'static self,
        roots: &Roots,
        directory: &Path,
        until: Instant,
    ) -> io::Result<[Vec<u8>; 3]> {
        if self.still_hangs(directory) {
            return Err(broken(directory, "have been waited for since an earlier question"));
        }
        let begun = Instant::now();
        // An answer that is late leaves time to say so.
        let end = begun + PATIENCE.min(until.saturating_duration_since(begun) * 3 / 4);
        let Ok(place) = timeout_at(end, self.places.acquire()).await else {
            return Err(self.crowded(directory));
        };
        let place = place.map_err(io::Error::other)?;
        let (roots, directory) = (roots.clone(), directory.to_owned());
        let patience = end.saturating_duration_since(Instant::now());
        // It notes by itself what comes too late, as nobody may be left to hear of it.
        let read = move || self.read_at(place, &roots, directory, patience);
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    fn read_at(
        &self,
        place: SemaphorePermit<'static>,
        roots: &Roots,
        directory: PathBuf,
        patience: Duration,
    ) -> io::Result<[Vec<u8>; 3]> {
        let paths = [SERVER, CLIENT, CLIENT_KEY].map(|name| directory.join(name)).to_vec();
        match Asker::new(roots).ask(Question::Files { paths, limit: MAX_CERTIFICATE }, patience) {
            Asked::Now(Answer::Files(files)) => {
                let files = files.into_iter().collect::<io::Result<Vec<_>>>().map_err(|error| {
                    if error.kind() == io::ErrorKind::NotFound {
                        return error;
                    }
                    broken(&directory, &format!("cannot be read: {error}"))
                })?;
                files.try_into().map_err(|_| io::ErrorKind::NotFound.into())
            }
            Asked::Later(answer) => {
                let why = format!("the certificates in {} could not be read in time", directory.display());
                self.late().push(Late { directory, answer, _place: place });
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
            Asked::Now(_) | Asked::Never => {
                Err(broken(&directory, "cannot be read: no thread can be started for it"))
            }
        }
    }

    /// Whether an earlier reading there has not ended yet. Those that have give back their places.
    fn still_hangs(&self, directory: &Path) -> bool {
        let mut late = self.late();
        late.retain(|one| matches!(one.answer.try_recv(), Err(TryRecvError::Empty)));
        late.iter().any(|one| one.directory == directory)
    }

    /// Why there was no place to read in.
    fn crowded(&self, directory: &Path) -> io::Error {
        let late = self.late();
        match late.first() {
            Some(one) if late.len() >= MAX_READING => {
                let others = format!(
                    "are left alone, as {} other readings hang: {}",
                    late.len(),
                    one.directory.display()
                );
                broken(directory, &others)
            }
            _ => io::Error::new(io::ErrorKind::TimedOut, "its certificates could not be read in time"),
        }
    }

    fn late(&self) -> MutexGuard<'_, Vec<Late>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error that is this host's to mend.
fn broken(directory: &Path, what: &str) -> io::Error {
    io::Error::other(format!("the certificates in {} {what}", directory.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;

    /// Of a test alone.
    fn own() -> &'static Certificates {
        Box::leak(Box::new(Certificates::new()))
    }

    fn hang(all: &'static Certificates, directory: &str) -> SyncSender<Answer> {
        let (sender, answer) = sync_channel(1);
        let place = all.places.try_acquire().unwrap();
        all.late().push(Late { directory: directory.into(), answer, _place: place });
        sender
    }

    fn machine(base: &Path) {
        std::fs::create_dir(base.join("machine")).unwrap();
        for name in [SERVER, CLIENT, CLIENT_KEY] {
            std::fs::write(base.join("machine").join(name), name).unwrap();
        }
    }

    #[tokio::test]
    async fn what_hangs_is_not_read_again_and_takes_no_more_than_its_places() {
        let base = tempfile::tempdir().unwrap();
        machine(base.path());
        let (all, roots) = (own(), Roots::at(base.path()));
        let read = async |patience: Duration| {
            all.read(&roots, Path::new("/machine"), Instant::now() + patience).await
        };
        let long = Duration::from_secs(60);
        let own = hang(all, "/machine");
        let error = read(long).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the certificates in /machine have been waited for since an earlier question"
        );
        assert_eq!(all.places.available_permits(), MAX_READING - 1, "no other thread was sent there");
        drop(own);
        let names = [SERVER, CLIENT, CLIENT_KEY].map(|name| name.as_bytes().to_vec());
        assert_eq!(read(long).await.unwrap(), names);
        let mut others: Vec<_> =
            (0..MAX_READING).map(|number| hang(all, &format!("/hangs/{number}"))).collect();
        let error = read(Duration::from_millis(50)).await.unwrap_err().to_string();
        assert!(
            error.starts_with(
                "the certificates in /machine are left alone, as 8 other readings hang: /hangs/0"
            ),
            "{error}"
        );
        // One of them comes back.
        others.pop();
        assert_eq!(read(long).await.unwrap(), names);
    }

    #[tokio::test]
    async fn a_reading_that_nobody_waits_for_any_more_keeps_its_place_until_it_ends() {
        let base = tempfile::tempdir().unwrap();
        machine(base.path());
        let all = own();
        let place = all.places.try_acquire().unwrap();
        let read = all.read_at(place, &Roots::at(base.path()), "/machine".into(), Duration::ZERO);
        if let Err(error) = read {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(all.places.available_permits(), MAX_READING - 1);
        }
        let begun = std::time::Instant::now();
        while all.still_hangs(Path::new("/machine")) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(all.places.available_permits(), MAX_READING);
    }
}
