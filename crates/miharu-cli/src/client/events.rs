//! Listening to events: a WebSocket on the daemon's unix socket.

use futures_util::StreamExt as _;
use miharu_api::Envelope;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Client;
use crate::error::Failure;

/// Events as they come.
#[derive(Debug)]
pub(crate) struct Events(WebSocketStream<UnixStream>);

impl Client {
    /// Begins to listen at `path`.
    pub(crate) async fn listen(&self, path: &str) -> Result<Events, Failure> {
        self.socket.say(&format!("GET {path} (WebSocket)"));
        let stream = self.socket.connect().await?;
        match tokio_tungstenite::client_async(format!("ws://miharu{path}"), stream).await {
            Ok((events, _)) => Ok(Events(events)),
            Err(error) => Err(refused(error)),
        }
    }
}

impl Events {
    /// The next one; nothing when the server ends the connection.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Some(text.as_str().to_owned())),
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed)) | None => return Ok(None),
                // Pings are answered by reading on.
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    return Err(Failure::request(format!("miharud broke the connection off ({error})")));
                }
            }
        }
    }
}

/// The server's own words, where it has some.
fn refused(error: Error) -> Failure {
    let Error::Http(response) = error else {
        return Failure::request(format!(
            "the server's answer is not understood ({error}): is this socket miharud's?"
        ));
    };
    let body = response.body().as_deref().unwrap_or_default();
    match serde_json::from_slice::<Envelope<serde_json::Value>>(body) {
        Ok(envelope) if !envelope.error.is_empty() => Failure::request(envelope.error),
        _ => Failure::request(format!("the server does not tell of events ({})", response.status())),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Canned, Fake};

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let fake = Fake::start(vec![Canned::error(400, "'x' is no type of events")]);
        let failure = fake.miharu(&["monitor", "--type=x", "--project", "a/b"]).0.unwrap_err().to_string();
        assert_eq!(fake.requests()[0].line(), "GET /1.0/events?type=x&project=a%2Fb");
        assert_eq!(failure, "'x' is no type of events");
    }
}
