//! `miharu webui`: the web page, through the unix socket, on a port of this host that a browser can open.
//!
//! Whoever may open the socket may see everything, so nothing but reads of what the page shows goes through, and only for the one
//! browser that brought the token of the printed address: see [`door`].

mod door;

use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderName, IF_NONE_MATCH,
    TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use miharu_api::Envelope;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use super::{Chatter, Context};
use crate::client::{Ask, Socket};
use crate::error::Failure;
use crate::remote;
use door::{Door, Verdict};

/// Connections at once: a browser takes six.
const CONNECTIONS: usize = 64;
/// How long a connection may take to send a request.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Of a browser's headers, those that the daemon learns.
const PASSED: [HeaderName; 3] = [ACCEPT, ACCEPT_ENCODING, IF_NONE_MATCH];
/// Of the daemon's headers, those that are about its own connection.
const OF_CONNECTION: [HeaderName; 2] = [CONNECTION, TRANSFER_ENCODING];

/// Where, and for whom.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  miharu webui                                  Open the page in the browser of this desktop
  miharu webui --no-browser                     Print its address, which works once
  miharu webui --address 127.0.0.1:8500         The same on a port that you choose

With `ssh -L 8500:127.0.0.1:8500 HOST` the last one's address works in the browser in front of you.
It goes on until it is interrupted (Ctrl-C). What the page shows is read through the socket, so no
certificate is needed; nothing can be changed that way.")]
pub(crate) struct WebuiArgs {
    #[arg(hide = true)]
    remote: Option<String>,
    /// Where to listen: an address of this host's loopback interface, and a port, 0 for any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    address: SocketAddr,
    /// Print the page's address, and open no browser
    #[arg(long)]
    no_browser: bool,
}

/// Serves the page until it is interrupted.
pub(crate) async fn run(context: &Context<'_>, args: &WebuiArgs, out: &mut dyn Write) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    if !args.address.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "{} is no address of the loopback interface: the page is served without encryption, so only this host may \
             reach it. For others, set core.https_address and trust their certificates",
            args.address.ip()
        )));
    }
    // What is wrong with the daemon is better said here than in a browser.
    let page = context.client.send(Ask::new(Method::GET, "/ui/")).await?;
    if page.status != StatusCode::OK {
        page.check()?;
        return Err(Failure::request("this miharud has no web page: is it older than this program?"));
    }
    let cannot = |error: std::io::Error| {
        Failure::request(format!("cannot listen on {}: {error}; choose another with --address", args.address))
    };
    let listener = TcpListener::bind(args.address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let door = Door::new(address).map_err(|error| Failure::request(format!("no random numbers: {error}")))?;
    let url = door.url();
    // Listened for before anybody is told that it ends this. A host that gives no signals has Ctrl-C end the program all the same.
    let mut interrupted = signal(SignalKind::interrupt()).ok();
    match context.chatter {
        Chatter::Quiet => writeln!(out, "{url}")?,
        Chatter::Spoken => writeln!(
            out,
            "The web page is at\n\n    {url}\n\nThis address works once, for the browser that opens it first. Ctrl-C ends it."
        )?,
    }
    out.flush()?;
    if !args.no_browser && has_desktop() {
        open(&url);
    }
    let end = async {
        match &mut interrupted {
            Some(interrupted) => drop(interrupted.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = serve(listener, Arc::new(Shared { socket: context.client.socket().clone(), door })) => {}
        () = end => {}
    }
    Ok(())
}

/// Whether there is a desktop whose browser could be opened. Root's own would be none that anybody uses.
fn has_desktop() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    (is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")) && !is_set("SUDO_USER")
}

/// Hands the address to the desktop. For a moment whoever may list processes can see it; who is faster than the browser is
/// noticed, as the address then works no more.
fn open(url: &str) {
    #[expect(clippy::disallowed_methods, reason = "the command line may start what its user asked for")]
    let mut command = std::process::Command::new("xdg-open");
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Without it the printed address is enough.
    if let Ok(mut child) = command.spawn() {
        std::thread::spawn(move || child.wait());
    }
}

/// What every connection shares.
#[derive(Debug)]
struct Shared {
    socket: Socket,
    door: Door,
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: some come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            connection(stream, shared).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        // What a body says that nobody wanted is not read.
        let (head, _) = request.into_parts();
        async move { Ok::<_, std::convert::Infallible>(answer(&shared, head).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    // A browser that breaks off is no error of anybody's.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: &Shared, head: http::request::Parts) -> Response<Full<Bytes>> {
    match shared.door.judge(&head) {
        Verdict::Answer(answer) => answer,
        Verdict::Pass => relay(&shared.socket, &head).await,
    }
}

async fn relay(socket: &Socket, head: &http::request::Parts) -> Response<Full<Bytes>> {
    let asked = head.uri.path_and_query().map_or("/", |asked| asked.as_str());
    let mut request = Request::builder().method(head.method.clone()).uri(asked);
    for name in PASSED {
        for value in head.headers.get_all(&name) {
            request = request.header(&name, value);
        }
    }
    let request = request
        .header(HOST, "miharu")
        .header(USER_AGENT, concat!("miharu-webui/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Full::default());
    let delivered = match request {
        Ok(request) => socket.relay(request).await,
        Err(error) => Err(Failure::request(error.to_string())),
    };
    match delivered {
        Ok(response) => {
            let (mut head, body) = response.into_parts();
            OF_CONNECTION.iter().for_each(|name| drop(head.headers.remove(name)));
            head.headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            Response::from_parts(head, Full::new(body))
        }
        Err(failure) => away(&failure),
    }
}

/// The daemon is not there: the page knows what to make of an error of the API.
fn away(failure: &Failure) -> Response<Full<Bytes>> {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let body = serde_json::to_vec(&Envelope::error(status.as_u16(), failure.to_string())).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    door::guard(response)
}

#[cfg(test)]
mod tests;
