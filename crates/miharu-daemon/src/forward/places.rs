//! How many requests to other members are under way: so many to each, so that one that is down holds up nobody who asks for others,
//! and so many for each client. Whoever may open the unix socket is no client of these.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::unread::Client;

/// To one member, and of these for one client.
const OF_MEMBER: usize = 16;
const OF_MEMBER_FOR_CLIENT: usize = 4;
/// For one client.
const FOR_CLIENT: usize = 32;
/// To all members.
const OF_ALL: usize = 128;

/// What is under way.
#[derive(Debug, Default, Clone)]
pub(super) struct Places {
    /// Held to count, and for a push. They are few.
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Debug, Default)]
struct UnderWay {
    last: u64,
    requests: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    id: u64,
    member: String,
    client: Option<Client>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more request, of a client where it is one's that counts; as an error, what there is too much of.
    pub(super) fn take(&self, member: &str, client: Option<Client>) -> Result<Place, String> {
        let mut under_way = self.lock();
        let count = |of: &dyn Fn(&Asked) -> bool| under_way.requests.iter().filter(|asked| of(asked)).count();
        let is_to = |asked: &Asked| asked.member == member;
        let is_for = |asked: &Asked| client.is_some() && asked.client == client;
        let limits = [
            (count(&|asked| is_to(asked) && is_for(asked)), OF_MEMBER_FOR_CLIENT, "of yours to it"),
            (count(&is_for), FOR_CLIENT, "of yours to other members"),
            (count(&is_to), OF_MEMBER, "to it"),
            (under_way.requests.len(), OF_ALL, "to other members"),
        ];
        if let Some((_, most, which)) = limits.into_iter().find(|(now, most, _)| now >= most) {
            return Err(format!("{most} requests {which} are under way already"));
        }
        under_way.last += 1;
        let id = under_way.last;
        under_way.requests.push(Asked { id, member: member.to_owned(), client });
        Ok(Place { id, places: self.clone() })
    }
}

/// A request that is under way, for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    places: Places,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().requests.retain(|asked| asked.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: usize) -> Option<Client> {
        Some(Client::Certificate(format!("{number:064}")))
    }

    #[test]
    fn a_member_that_is_down_and_who_asks_for_it_hold_up_nobody_else() {
        let places = Places::default();
        let mut held: Vec<_> = (0..100).filter_map(|_| places.take("down", client(1)).ok()).collect();
        assert_eq!(held.len(), OF_MEMBER_FOR_CLIENT);
        let refused = places.take("down", client(1)).unwrap_err();
        assert_eq!(refused, "4 requests of yours to it are under way already");
        held.extend(places.take("down", client(2)));
        held.extend(places.take("up", client(1)));
        assert_eq!(held.len(), OF_MEMBER_FOR_CLIENT + 2, "others, and other members, are asked");
        for number in 3..100 {
            held.extend(places.take("down", client(number)));
        }
        assert_eq!(held.len(), OF_MEMBER + 1);
        assert!(places.take("up", client(3)).is_ok());
        drop(held);
        assert!(places.lock().requests.is_empty());
    }

    #[test]
    fn one_client_cannot_take_all_places_whatever_it_asks_for() {
        let places = Places::default();
        let held: Vec<_> = (0..200).filter_map(|n| places.take(&n.to_string(), client(1)).ok()).collect();
        assert_eq!(held.len(), FOR_CLIENT);
        assert!(places.take("0", client(2)).is_ok());
        let all: Vec<_> = (0..200).filter_map(|n| places.take(&n.to_string(), client(n)).ok()).collect();
        assert_eq!(held.len() + all.len(), OF_ALL);
    }

    #[test]
    fn the_unix_socket_has_all_places_of_a_member_and_no_more() {
        let places = Places::default();
        let held: Vec<_> = (0..100).filter_map(|_| places.take("down", None).ok()).collect();
        assert_eq!(held.len(), OF_MEMBER);
        assert_eq!(places.take("down", None).unwrap_err(), "16 requests to it are under way already");
        let all: Vec<_> = (0..200).filter_map(|n| places.take(&n.to_string(), None).ok()).collect();
        assert_eq!(held.len() + all.len(), OF_ALL);
    }
}
