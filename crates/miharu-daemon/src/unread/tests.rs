//! Tests of what unread answers may hold, and of whose turn it is.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use arc_swap::ArcSwap;
use http::StatusCode;
use http::header::RETRY_AFTER;
use miharu_store::Config;

use super::*;
use crate::listen::{Gate, Limits, PeerCertificate};

const MEBIBYTE: usize = 1 << 20;

/// Somebody who is connected from this address, and shows a certificate of its own.
pub(crate) fn connected(unread: &Arc<Unread>, last: u8) -> Recipient {
    let settings = Config::replace(&BTreeMap::new()).unwrap().settings();
    let gate = Gate::new(Arc::new(ArcSwap::from_pointee(Limits::of(&settings))));
    let ticket = gate.admit(Source::V4(Ipv4Addr::new(192, 0, 2, last))).unwrap();
    let certificate = Arc::new(PeerCertificate::new(vec![last].into()));
    let mut extensions = http::Extensions::new();
    extensions.insert(Peer { entrance: Entrance::Metrics, certificate: Some(certificate) });
    extensions.insert(ticket.standing().clone());
    // It stays connected.
    std::mem::forget(ticket);
    Recipient::of(unread, &extensions)
}

fn trusted(unread: &Arc<Unread>, last: u8) -> Recipient {
    let recipient = connected(unread, last);
    recipient.standing.as_ref().unwrap().trusted();
    recipient
}

fn of(mebibytes: usize) -> Bytes {
    Bytes::from(vec![0; mebibytes * MEBIBYTE])
}

fn response(bytes: &Bytes, made: Made) -> Response {
    let mut response = Response::new(Body::from(bytes.clone()));
    response.extensions_mut().insert(made);
    response
}

/// So many answers of a buffer of their own each; those that were given.
async fn ask(recipient: &Recipient, times: usize, mebibytes: usize, made: Made) -> Vec<Response> {
    let mut given = Vec::new();
    for _ in 0..times {
        let answer = recipient.counted(response(&of(mebibytes), made)).await;
        if answer.status() == StatusCode::OK {
            given.push(answer);
        }
    }
    given
}

#[tokio::test]
async fn a_client_has_a_share_and_others_have_theirs() {
    let unread = Arc::default();
    let (greedy, modest) = (trusted(&unread, 1), trusted(&unread, 2));
    let held = ask(&greedy, 100, 2, Made::ForOne).await;
    assert_eq!(held.len(), 8, "16 MiB beside one of them, with what an answer takes besides");
    let refused = greedy.counted(response(&of(2), Made::ForOne)).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()[RETRY_AFTER], "1");
    let body = axum::body::to_bytes(refused.into_body(), 1000).await.unwrap();
    assert!(String::from_utf8_lossy(&body).contains("were not read yet"), "{body:?}");
    assert_eq!(greedy.turn().await.unwrap_err(), Full::OfClient, "nothing more is made for it");
    assert!(modest.turn().await.is_ok());
    assert_eq!(ask(&modest, 3, 2, Made::ForOne).await.len(), 3);
    drop(held);
    assert!(greedy.turn().await.is_ok());
    assert_eq!(ask(&greedy, 3, 2, Made::ForOne).await.len(), 3);
    assert_eq!(unread.book().held(), (0, 0, 0), "nothing is left of what was read");
}

#[tokio::test]
async fn all_together_have_a_bound_and_strangers_have_another() {
    let unread = Arc::default();
    let (mut held, mut kept) = (Vec::new(), Vec::new());
    for last in 0..100 {
        held.extend(ask(&connected(&unread, last), 3, 2, Made::ForOne).await);
    }
    assert_eq!(held.len(), 17, "32 MiB beside two");
    // What is kept anyway is given for longer, and not without end.
    for last in 100..150 {
        kept.extend(ask(&connected(&unread, last), 3, 2, Made::ForAll).await);
    }
    assert_eq!(held.len() + kept.len(), 33, "64 MiB beside two");
    // Nobody who is trusted goes short of all that.
    let mut held_by_trusted = Vec::new();
    for last in 150..170 {
        held_by_trusted.extend(ask(&trusted(&unread, last), 7, 2, Made::ForOne).await);
    }
    assert_eq!(held_by_trusted.len(), 35, "64 MiB beside four");
    let last = trusted(&unread, 171);
    let refused = last.counted(response(&of(2), Made::ForOne)).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(last.turn().await.is_ok(), "it is not to blame");
    for last in 172..190 {
        held_by_trusted.extend(ask(&trusted(&unread, last), 20, 2, Made::ForAll).await);
    }
    assert_eq!(held_by_trusted.len(), 67, "128 MiB beside four");
    drop((held, kept, held_by_trusted));
    assert_eq!(unread.book().held(), (0, 0, 0));
}

#[tokio::test]
async fn a_buffer_that_many_read_counts_once() {
    let unread = Arc::default();
    let shared = of(2);
    let mut held = Vec::new();
    for last in 0..100 {
        let stranger = connected(&unread, last);
        for _ in 0..50 {
            let answer = stranger.counted(response(&shared, Made::ForAll)).await;
            assert_eq!(answer.status(), StatusCode::OK);
            held.push(answer);
        }
        // Found to be trusted while it reads: what it began as a stranger ends as a stranger's.
        stranger.standing.as_ref().unwrap().trusted();
        held.push(stranger.counted(response(&shared, Made::ForAll)).await);
    }
    let (trusted, strangers, clients) = unread.book().held();
    let once = 2 * MEBIBYTE..3 * MEBIBYTE;
    assert!(once.contains(&trusted) && once.contains(&strangers), "{trusted} {strangers}");
    assert_eq!(clients, 200, "each by its address and by its certificate");
    drop(held);
    assert_eq!(unread.book().held(), (0, 0, 0));
}

#[tokio::test]
async fn an_answer_is_counted_until_the_last_piece_of_it_is_gone() {
    let unread = Arc::default();
    let client = trusted(&unread, 1);
    let answer = client.counted(response(&of(2), Made::ForOne)).await;
    let mut bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let first = bytes.split_to(MEBIBYTE);
    drop(bytes);
    assert!(unread.book().held().0 > 2 * MEBIBYTE);
    drop(first);
    assert_eq!(unread.book().held(), (0, 0, 0));
}

#[tokio::test]
async fn one_answer_may_be_as_large_as_it_is() {
    let unread = Arc::default();
    let client = trusted(&unread, 1);
    let held = ask(&client, 5, 40, Made::ForOne).await;
    assert_eq!(held.len(), 1);
    assert_eq!(ask(&client, 5, 1, Made::ForOne).await.len(), 5, "small ones are given beside it");
    let kept = ask(&client, 5, 20, Made::ForAll).await;
    assert_eq!(kept.len(), 1, "and more of what is kept");
}

#[tokio::test]
async fn what_is_gathered_from_elsewhere_counts_as_it_grows() {
    let unread = Arc::default();
    let client = trusted(&unread, 1);
    let first = client.gathers().unwrap();
    first.grown(100 * MEBIBYTE).unwrap();
    let second = client.gathers().unwrap();
    second.grown(15 * MEBIBYTE).unwrap();
    assert_eq!(second.grown(17 * MEBIBYTE), Err(Full::OfClient));
    assert!(unread.book().gathered() > 115 * MEBIBYTE);
    first.grown(MEBIBYTE).unwrap();
    second.grown(17 * MEBIBYTE).unwrap();
    drop((first, second));
    assert_eq!(unread.book().gathered(), 0);
    assert_eq!(unread.book().held(), (0, 0, 0));
}

#[tokio::test]
async fn a_long_answer_of_another_member_takes_no_room_of_others_and_makes_none() {
    let unread = Arc::default();
    let client = trusted(&unread, 1);
    let gathering = client.gathers().unwrap();
    gathering.grown(256 * MEBIBYTE).unwrap();
    let (other, stranger) = (trusted(&unread, 2), connected(&unread, 3));
    let gathered = other.gathers().unwrap();
    gathered.grown(63 * MEBIBYTE).unwrap();
    assert_eq!(gathered.grown(65 * MEBIBYTE), Err(Full::OfAll), "64 MiB beside the longest");
    assert_eq!(ask(&trusted(&unread, 4), 100, 2, Made::ForOne).await.len(), 8, "as ever");
    assert_eq!(ask(&stranger, 100, 2, Made::ForOne).await.len(), 8);
    drop((gathering, gathered));
    // As an answer it makes room for those to whom it is one, until nothing is held for any of them.
    let long = ask(&client, 1, 256, Made::ForOne).await;
    let strangers = async || {
        let mut held = Vec::new();
        for last in 100..150 {
            held.extend(ask(&connected(&unread, last), 3, 2, Made::ForOne).await);
        }
        held.len()
    };
    let trusted = async || {
        let mut held = Vec::new();
        for last in 150..200 {
            held.extend(ask(&trusted(&unread, last), 3, 2, Made::ForOne).await);
        }
        held.len()
    };
    assert_eq!(long.len(), 1);
    assert_eq!(strangers().await, 17, "32 MiB beside two of their own");
    assert_eq!(trusted().await, 150, "all of it");
    drop(long);
    assert_eq!(unread.book().held(), (0, 0, 0));
    assert_eq!(trusted().await, 35, "64 MiB beside four");
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_for_itself_alone_and_not_for_ever() {
    let unread = Arc::default();
    let (client, other) = (trusted(&unread, 1), trusted(&unread, 2));
    let turn = client.turn().await.unwrap();
    assert!(other.turn().await.is_ok());
    assert_eq!(client.turn().await.unwrap_err(), Full::Turn);
    drop(turn);
    assert!(client.turn().await.is_ok());
    assert_eq!(unread.book().held(), (0, 0, 0));
}

#[tokio::test]
async fn what_has_no_length_or_nothing_in_it_passes() {
    let unread = Arc::default();
    let client = trusted(&unread, 1);
    for body in [Body::empty(), Body::from_stream(Body::from("x").into_data_stream())] {
        assert_eq!(client.counted(Response::new(body)).await.status(), StatusCode::OK);
    }
    let own = Recipient::of(&unread, &http::Extensions::new());
    assert_eq!(ask(&own, 100, 2, Made::ForOne).await.len(), 100, "the daemon's own requests are free");
    assert_eq!(unread.book().held(), (0, 0, 0));
}
