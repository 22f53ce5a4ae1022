//! gRPC on a runtime's socket: one connection, used for a few calls and closed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::client::Grpc;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::oci::sockets::Failure;

/// The longest message that is taken, bytes: one about a container holds its whole configuration.
const MAX_MESSAGE: usize = 4 << 20;

/// The header by which containerd's own services are told which namespace is meant.
const NAMESPACE: &str = "containerd-namespace";

/// A connection to a server of gRPC.
#[derive(Debug)]
pub(crate) struct Connection {
    grpc: Grpc<Sender>,
    /// What keeps the connection going; it ends with this.
    _tasks: Tasks,
}

impl Connection {
    /// Begins to speak on a stream.
    ///
    /// # Errors
    /// Where the other side does not speak HTTP/2.
    pub(crate) async fn over(stream: UnixStream) -> Result<Self, Failure> {
        let tasks = Tasks::default();
        let handshake = http2::handshake(tasks.clone(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| Failure::Broken(error.to_string()))?;
        tasks.spawn(async {
            // What ends a connection is told by the call on it.
            let _ = connection.await;
        });
        // A socket has no name; any will do.
        let grpc = Grpc::with_origin(Sender(sender), Uri::from_static("http://localhost"));
        Ok(Self { grpc: grpc.max_decoding_message_size(MAX_MESSAGE), _tasks: tasks })
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

/// The tasks of one connection. They end when the last of these is dropped, so that a server that hangs keeps nothing open
/// here.
#[derive(Debug, Clone, Default)]
struct Tasks {
    /// hyper wants to start tasks from wherever it has one of these; the lock is held only for that.
    running: Arc<Mutex<JoinSet<()>>>,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
