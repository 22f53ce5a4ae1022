//! Runtimes' API sockets, asked within a deadline; one that does not answer is left alone for a growing while.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::StatusCode;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;

use super::conversation::{Stream, connect, converse};
use crate::driver::is_trusted;

/// How long one request may take, with everything.
const DEADLINE: Duration = Duration::from_secs(1);

/// How long a socket is left alone that did not answer, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest such pause.
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// The longest answer that is taken, bytes: one about a container with thousands of mounts and labels is far shorter.
const MAX_ANSWER: usize = 4 << 20;

/// Why a socket gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// There is none, or nobody listens on it.
    #[error("{} has no listener", .0.display())]
    Absent(PathBuf),
    /// It is not root's, so it is never asked.
    #[error("{} is not root's socket", .0.display())]
    Untrusted(PathBuf),
    /// It did not answer in time or not in a way that can be understood, now or a while ago.
    #[error("{} does not answer: {problem}", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It answered, but not with what was asked for: with this status (of HTTP, or of gRPC) or message.
    #[error("{} answers {answer}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What it says.
        answer: String,
    },
}

/// What went wrong in a request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody there that speaks this protocol: the socket is left alone for a while.
    Broken(String),
    /// An answer that says no, such as that there is no such container.
    Refused(String),
}

/// The sockets that the thread of names asks.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    resting: HashMap<PathBuf, Rest>,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    pause: Duration,
    problem: String,
}

impl Sockets {
    /// Asks root's socket at `path` (as this process sees it), on a connection of its own. `request` speaks on it; it is given up once
    /// it takes longer than a second.
    ///
    /// # Errors
    /// [`Unanswered`]. After [`Unanswered::Silent`] no connection is made for a while.
    pub(crate) fn ask<T, F>(
        &mut self,
        path: &Path,
        request: impl FnOnce(Stream) -> F,
    ) -> Result<T, Unanswered>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let absent = || Unanswered::Absent(path.to_owned());
        // It may be a link of root's, as podman-docker puts one in the place of Docker's.
        let link = std::fs::symlink_metadata(path).map_err(|_| absent())?;
        let metadata = std::fs::metadata(path).map_err(|_| absent())?;
        if !metadata.file_type().is_socket() || !is_trusted(metadata.uid()) || !is_trusted(link.uid()) {
            return Err(Unanswered::Untrusted(path.to_owned()));
        }
        if let Some(rest) = self.resting.get(path).filter(|rest| Instant::now() < rest.until) {
            return Err(Unanswered::Silent { path: path.to_owned(), problem: rest.problem.clone() });
        }
        let end = Instant::now() + DEADLINE;
        let asked = match connect(path) {
            Ok(stream) => match converse(stream, request, end) {
                Some(answer) => answer.map_err(Asked::Failed),
                None => Err(Asked::Late),
            },
            Err(error) => Err(Asked::Connect(error)),
        };
        let problem = match asked {
            Ok(answer) => {
                self.resting.remove(path);
                return Ok(answer);
            }
            // Nobody listens: that costs nothing to find out each time.
            Err(Asked::Connect(error))
                if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) =>
            {
                return Err(absent());
            }
            Err(Asked::Failed(Failure::Refused(answer))) => {
                self.resting.remove(path);
                return Err(Unanswered::Refused { path: path.to_owned(), answer });
            }
            Err(Asked::Connect(error)) => error.to_string(),
            Err(Asked::Failed(Failure::Broken(problem))) => problem,
            Err(Asked::Late) => format!("nothing within {} s", DEADLINE.as_secs()),
        };
        self.rest(path, problem.clone());
        Err(Unanswered::Silent { path: path.to_owned(), problem })
    }

    /// Gets a JSON document of a runtime's HTTP API: `target` is the path with its query.
    ///
    /// # Errors
    /// As [`Sockets::ask`]; [`Unanswered::Refused`] for any status but 200.
    pub(crate) fn get<T: DeserializeOwned>(&mut self, path: &Path, target: &str) -> Result<T, Unanswered> {
        self.ask(path, async |stream| {
            let bytes = get(stream, target.to_owned()).await?;
            let unexpected = |error| Failure::Broken(format!("that is not the JSON expected: {error}"));
            serde_json::from_slice(&bytes).map_err(unexpected)
        })
    }

    fn rest(&mut self, path: &Path, problem: String) {
        let pause = self.resting.get(path).map_or(FIRST_PAUSE, |rest| (rest.pause * 2).min(LAST_PAUSE));
        self.resting.insert(path.to_owned(), Rest { until: Instant::now() + pause, pause, problem });
    }
}

enum Asked {
    Connect(std::io::Error),
    Failed(Failure),
    Late,
}

async fn get(stream: Stream, target: String) -> Result<Bytes, Failure> {
    let broken = |error: &dyn std::fmt::Display| Failure::Broken(error.to_string());
    let tasks = stream.tasks();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|e| broken(&e))?;
    tasks.spawn(async {
        // What ends a connection is told by the request on it.
        let _ = connection.await;
    });
    let request = hyper::Request::get(target)
        .header(hyper::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|e| broken(&e))?;
    let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
    let body = body.await.map_err(|e| broken(&e))?.to_bytes();
    match status {
        StatusCode::OK => Ok(body),
        status => Err(Failure::Refused(status.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream as Stream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A socket, and how many have connected to it.
    struct Server {
        base: tempfile::TempDir,
        connections: Arc<AtomicUsize>,
    }

    impl Server {
        /// Answers each connection once in a thread of its own.
        fn new(answer: impl Fn(Stream) + Send + Sync + 'static) -> Self {
            let base = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(base.path().join("s")).unwrap();
            let connections = Arc::new(AtomicUsize::new(0));
            let (count, answer) = (Arc::clone(&connections), Arc::new(answer));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = Arc::clone(&answer);
                    std::thread::spawn(move || answer(stream.unwrap()));
                }
            });
            Self { base, connections }
        }

        fn path(&self) -> PathBuf {
            self.base.path().join("s")
        }

        fn connections(&self) -> usize {
            self.connections.load(Ordering::SeqCst)
        }
    }

    fn reply(text: &'static str) -> impl Fn(Stream) + Send + Sync {
        move |mut stream| {
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        }
    }

    const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";

    fn get(sockets: &mut Sockets, server: &Server) -> Result<serde_json::Value, Unanswered> {
        sockets.get(&server.path(), "/x")
    }

    #[test]
    fn an_answer() {
        let (mut sockets, server) = (Sockets::default(), Server::new(reply(FINE)));
        for _ in 0..2 {
            assert_eq!(get(&mut sockets, &server).unwrap()["a"], 1);
        }
        assert!(sockets.resting.is_empty());
    }

    #[test]
    fn an_answer_that_ends_with_the_connection() {
        let server = Server::new(reply("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"a\":2}"));
        assert_eq!(get(&mut Sockets::default(), &server).unwrap()["a"], 2);
    }

    #[test]
    fn no_is_an_answer() {
        let server = Server::new(reply("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"));
        let mut sockets = Sockets::default();
        for _ in 0..2 {
            let error = get(&mut sockets, &server).unwrap_err();
            assert!(
                matches!(&error, Unanswered::Refused { answer, .. } if answer == "404 Not Found"),
                "{error}"
            );
        }
        assert_eq!(server.connections(), 2);
    }

    /// It is given up in time, and then left alone.
    fn is_given_up(server: &Server) {
        let mut sockets = Sockets::default();
        let begun = Instant::now();
        let error = get(&mut sockets, server).unwrap_err();
        assert!(matches!(error, Unanswered::Silent { .. }), "{error}");
        assert!(begun.elapsed() < DEADLINE * 20, "{:?}", begun.elapsed());
        let begun = Instant::now();
        for _ in 0..100 {
            assert!(matches!(get(&mut sockets, server), Err(Unanswered::Silent { .. })));
        }
        assert!(begun.elapsed() < DEADLINE * 20, "{:?}", begun.elapsed());
        assert_eq!(server.connections(), 1, "it is left alone");
        // The pause grows, and ends with an answer.
        let rest = sockets.resting.get_mut(&server.path()).unwrap();
        assert_eq!(rest.pause, FIRST_PAUSE);
        rest.until = Instant::now();
        assert!(get(&mut sockets, server).is_err());
        assert_eq!(sockets.resting[&server.path()].pause, FIRST_PAUSE * 2);
        assert_eq!(server.connections(), 2);
    }

    #[test]
    fn one_that_never_answers() {
        is_given_up(&Server::new(|mut stream| {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all);
        }));
    }

    #[test]
    fn one_that_stalls_byte_by_byte() {
        is_given_up(&Server::new(|mut stream| {
            for byte in FINE.bytes() {
                if stream.write_all(&[byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }));
    }

    #[test]
    fn one_that_talks_rubbish() {
        is_given_up(&Server::new(reply("\0\u{1}rubbish\r\n\r\n")));
        is_given_up(&Server::new(reply("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<a/>")));
        is_given_up(&Server::new(drop));
    }

    #[test]
    fn one_that_never_ends() {
        is_given_up(&Server::new(|mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            while stream.write_all(&[b' '; 65536]).is_ok() {}
        }));
    }

    #[test]
    fn what_is_no_socket_of_roots_is_not_asked() {
        let base = tempfile::tempdir().unwrap();
        let (file, link) = (base.path().join("file"), base.path().join("link"));
        std::fs::write(&file, "").unwrap();
        let server = Server::new(reply(FINE));
        std::os::unix::fs::symlink(server.path(), &link).unwrap();
        let mut sockets = Sockets::default();
        let mut get = |path: &Path| sockets.get::<serde_json::Value>(path, "/");
        assert!(matches!(get(&file), Err(Unanswered::Untrusted(_))));
        assert_eq!(get(&link).unwrap()["a"], 1, "root's own link leads to root's socket");
        // Only root can give a file away.
        let (other, is_roots) = (Some(4242), rustix::process::geteuid().is_root());
        if is_roots {
            std::os::unix::fs::lchown(&link, other, None).unwrap();
            assert!(matches!(get(&link), Err(Unanswered::Untrusted(_))), "the link is a user's");
            std::os::unix::fs::chown(server.path(), other, None).unwrap();
            assert!(matches!(get(&server.path()), Err(Unanswered::Untrusted(_))), "the socket is a user's");
        }
        assert!(matches!(get(&base.path().join("none")), Err(Unanswered::Absent(_))));
        // A daemon that was killed leaves its socket behind.
        let dead = base.path().join("dead");
        drop(UnixListener::bind(&dead).unwrap());
        assert!(matches!(get(&dead), Err(Unanswered::Absent(_))));
        assert!(sockets.resting.is_empty());
        assert_eq!(server.connections(), 1);
    }
}
