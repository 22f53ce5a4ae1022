//! gRPC on a runtime's socket: one connection, used for a few calls and closed.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, Uri};
use prost::Message;
use tonic::body::Body;
use tonic::client::Grpc;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::oci::conversation::Stream;
use crate::oci::sockets::Failure;

/// The longest message that is taken, bytes: one about a container holds its whole configuration.
const MAX_MESSAGE: usize = 4 << 20;

/// The header by which containerd's own services are told which namespace is meant.
const NAMESPACE: &str = "containerd-namespace";

/// A connection to a server of gRPC.
#[derive(Debug)]
pub(crate) struct Connection {
    grpc: Grpc<Sender>,
}

impl Connection {
    /// Begins to speak on a stream.
    ///
    /// # Errors
    /// Where the other side does not speak HTTP/2.
    pub(crate) async fn over(stream: Stream) -> Result<Self, Failure> {
        let tasks = stream.tasks();
        let handshake = http2::handshake(tasks.clone(), stream).await;
        let (sender, connection) = handshake.map_err(|error| Failure::Broken(error.to_string()))?;
        tasks.spawn(async {
            // What ends a connection is told by the call on it.
            let _ = connection.await;
        });
        // A socket has no name; any will do.
        let grpc = Grpc::with_origin(Sender(sender), Uri::from_static("http://localhost"));
        Ok(Self { grpc: grpc.max_decoding_message_size(MAX_MESSAGE) })
    }

    /// Calls `/SERVICE/METHOD`, in a namespace of containerd where one is given.
    ///
    /// # Errors
    /// [`Failure::Refused`] where the server says no.
    pub(crate) async fn call<Q, A>(
        &mut self,
        method: &'static str,
        namespace: Option<&str>,
        message: Q,
    ) -> Result<A, Failure>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut request = tonic::Request::new(message);
        if let Some(namespace) = namespace {
            let value =
                MetadataValue::try_from(namespace).map_err(|error| Failure::Refused(error.to_string()))?;
            request.metadata_mut().insert(NAMESPACE, value);
        }
        self.grpc.ready().await.map_err(|error| Failure::Broken(error.to_string()))?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let answer = self.grpc.unary(request, PathAndQuery::from_static(method), codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| failure(&status))
    }
}

/// Whether a server said no, or nobody there can be spoken to.
fn failure(status: &Status) -> Failure {
    let problem = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Unknown | Code::Unavailable | Code::Internal | Code::Cancelled | Code::DeadlineExceeded => {
            Failure::Broken(problem)
        }
        _ => Failure::Refused(problem),
    }
}

/// hyper's half of a connection as tonic wants it.
#[derive(Debug)]
struct Sender(SendRequest<Body>);

impl tower::Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::oci::sockets::{Sockets, Unanswered};

    /// An empty SETTINGS frame, with which a server begins, RFC 9113.
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

    #[derive(Clone, PartialEq, Message)]
    struct Anything {}

    /// Asks a server that says `words` and then nothing more, but listens until nobody speaks.
    fn ask(words: &'static [u8]) -> String {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (sender, ended) = channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(words);
            let _ = stream.read_to_end(&mut Vec::new());
            let _ = sender.send(());
        });
        let begun = Instant::now();
        let mut sockets = Sockets::default();
        let answer: Result<Anything, Unanswered> = sockets.ask(&path, |stream| async {
            Connection::over(stream).await?.call("/x.Y/Z", Some("default"), Anything {}).await
        });
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(ended.recv_timeout(Duration::from_secs(20)).is_ok(), "the connection is closed");
        answer.unwrap_err().to_string()
    }

    #[test]
    fn one_that_does_not_answer_is_given_up_and_nothing_stays_open() {
        for hung in [b"", SETTINGS] {
            let problem = ask(hung);
            assert!(problem.ends_with("nothing within 1 s"), "{problem}");
        }
    }

    #[test]
    fn one_that_talks_rubbish_is_told_from_one_that_says_no() {
        for rubbish in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0xff; 64]] {
            let problem = ask(rubbish);
            assert!(problem.contains("does not answer"), "{problem}");
        }
        let says_no = |code| matches!(failure(&Status::new(code, "x")), Failure::Refused(_));
        assert!(says_no(Code::NotFound) && says_no(Code::Unimplemented) && says_no(Code::OutOfRange));
        assert!(!says_no(Code::Unavailable) && !says_no(Code::Unknown));
    }
}
