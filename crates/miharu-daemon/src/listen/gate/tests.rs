//! Tests of who is let in, and who has to make room.

use super::*;

fn limits(half: usize, of_address: usize) -> Limits {
    Limits { half, of_address, handshakes: 1000, handshakes_of_address: 1000, requests: 2 }
}

fn gate(limits: Limits) -> Arc<Gate> {
    Gate::new(Arc::new(ArcSwap::from_pointee(limits)))
}

fn address(last: u8) -> Source {
    Source::V4(Ipv4Addr::new(192, 0, 2, last))
}

impl Ticket {
    fn is_revoked(&self) -> bool {
        !self.0.0.gate.lock().open.contains_key(&self.0.0.id)
    }
}

async fn tick() {
    tokio::time::advance(Duration::from_millis(1)).await;
}

#[test]
fn an_address_is_counted_by_what_its_holder_has() {
    let of = |text: &str| Source::of(text.parse().unwrap());
    assert_eq!(of("192.0.2.7"), of("::ffff:192.0.2.7"));
    assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
}

#[tokio::test(start_paused = true)]
async fn the_address_that_holds_most_makes_room_with_what_is_idle_longest() {
    let gate = gate(limits(4, 100));
    let lone = gate.admit(address(1)).unwrap();
    lone.arrived();
    tick().await;
    let first = gate.admit(address(2)).unwrap();
    tick().await;
    let second = gate.admit(address(2)).unwrap();
    second.arrived();
    tick().await;
    let third = gate.admit(address(2)).unwrap();
    third.arrived();
    let busy = second.standing().asks();
    let fifth = gate.admit(address(3)).unwrap();
    assert!(
        third.is_revoked(),
        "the one that is idle, not the older ones that shake hands or are being answered"
    );
    assert!(!lone.is_revoked() && !first.is_revoked() && !second.is_revoked());
    drop(busy);
    let _sixth = gate.admit(address(3)).unwrap();
    assert!(second.is_revoked() && !fifth.is_revoked() && !lone.is_revoked());
    tokio::time::timeout(Duration::from_secs(1), second.revoked()).await.expect("it is told so");
}

#[tokio::test(start_paused = true)]
async fn who_is_trusted_is_out_of_reach_of_strangers_and_its_address_is_remembered() {
    let gate = gate(limits(2, 100));
    let scraper = gate.admit(address(1)).unwrap();
    scraper.standing().trusted();
    let tickets: Vec<_> = (0..10).map(|_| gate.admit(address(9)).unwrap()).collect();
    assert!(!scraper.is_revoked());
    assert_eq!(tickets.iter().filter(|ticket| !ticket.is_revoked()).count(), 2);
    drop(scraper);
    // It comes back, and is a stranger like the others until its first request.
    let again = gate.admit(address(1)).unwrap();
    again.arrived();
    for last in 100..120 {
        std::mem::forget(gate.admit(address(last)).unwrap());
    }
    assert!(!again.is_revoked());
    again.standing().trusted();
    again.standing().untrusted();
    again.standing().untrusted();
    let inner = gate.lock();
    assert_eq!((inner.strangers, inner.trusted), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn those_who_are_trusted_have_a_limit_too() {
    let gate = gate(limits(2, 100));
    let mut tickets = Vec::new();
    for last in 1..=3 {
        let ticket = gate.admit(address(last)).unwrap();
        ticket.standing().trusted();
        tickets.push(ticket);
        tick().await;
    }
    let left: Vec<_> = tickets.iter().map(Ticket::is_revoked).collect();
    assert_eq!(left, [true, false, false]);
    // One that is gone already is counted by nobody, whatever is found out about it.
    tickets[0].standing().trusted();
    drop(tickets);
    let inner = gate.lock();
    assert_eq!((inner.strangers, inner.trusted, inner.open.len()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_address_has_a_limit_of_its_own() {
    let gate = gate(limits(100, 2));
    let first = gate.admit(address(1)).unwrap();
    let busy = first.standing().asks();
    let second = gate.admit(address(1)).unwrap();
    let _third = gate.admit(address(1)).unwrap();
    assert!(second.is_revoked() && !first.is_revoked());
    drop(busy);
    let all_busy: Vec<_> = [gate.admit(address(2)), gate.admit(address(2))].into_iter().flatten().collect();
    let _asking: Vec<_> = all_busy.iter().map(|ticket| ticket.standing().asks()).collect();
    assert!(gate.admit(address(2)).is_none(), "nobody who is being answered is cut off");
    assert!(gate.admit(address(3)).is_some());
}

#[tokio::test(start_paused = true)]
async fn handshakes_and_requests_have_rates() {
    let gate = gate(Limits { handshakes: 5, handshakes_of_address: 3, ..limits(1000, 1000) });
    let scraper = gate.admit(address(1)).unwrap();
    assert!(scraper.standing().may_ask() && scraper.standing().may_ask() && !scraper.standing().may_ask());
    scraper.standing().trusted();
    assert!((0..100).all(|_| scraper.standing().may_ask()));
    let came = |last: u8, times: usize| (0..times).filter(|_| gate.admit(address(last)).is_some()).count();
    assert_eq!(came(2, 10), 3);
    assert_eq!(came(3, 10), 1, "what all strangers have together is used up");
    assert_eq!(came(4, 10), 0);
    assert_eq!(
        came(1, 10),
        3,
        "who is known has only its own limit, and the scraper's handshake was given back"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(came(2, 10), 3);
    for _ in 0..50 {
        let ticket = gate.admit(address(1)).unwrap();
        ticket.standing().trusted();
    }
    assert_eq!((0..50).filter(|_| gate.admit(Source::User(0)).is_some()).count(), 50);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_of_addresses_is_bounded() {
    let gate = gate(Limits { handshakes: 1_000_000, ..limits(10, 10) });
    let scraper = gate.admit(address(1)).unwrap();
    scraper.standing().trusted();
    drop(scraper);
    for network in 0..20_000 {
        drop(gate.admit(Source::V6(network)));
    }
    assert!(gate.lock().sources.len() <= REMEMBERED + 2);
    assert!(gate.lock().sources.contains_key(&address(1)), "who was trusted is remembered");
    tokio::time::advance(KNOWN).await;
    for network in 0..20_000 {
        drop(gate.admit(Source::V6(network)));
    }
    assert!(!gate.lock().sources.contains_key(&address(1)));
}

#[tokio::test(start_paused = true)]
async fn room_is_made_when_the_system_has_nothing_left() {
    let gate = gate(limits(100, 100));
    let trusted = gate.admit(address(1)).unwrap();
    trusted.standing().trusted();
    let stranger = gate.admit(address(2)).unwrap();
    gate.make_room();
    gate.make_room();
    assert!(stranger.is_revoked() && !trusted.is_revoked());
}
