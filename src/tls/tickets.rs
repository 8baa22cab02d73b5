//! Session tickets that outlive a reload.
//!
//! A ticket is a session, encrypted by a key that only we know and carried by the client. The keys
//! go from worker to worker with everything else that one knows, so a client resumes its session
//! whichever worker it meets. A key is used for twelve hours and then only read for as long again:
//! whoever steals it later cannot read what was said before.
//!
//! Each listener encrypts by a key of its own, made of the common one and of whatever decides who
//! gets in there. A session of one listener is worth nothing at another, and nothing after
//! `client_ca` has changed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use parking_lot::RwLock;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SystemRandom, generate};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How long tickets are made with one key.
const KEY_AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);
/// How long a ticket is good at most: as long as its key is read.
const LIFETIME_SECONDS: u32 = 12 * 60 * 60;
/// How much of a ticket says which key it is of.
const NAME_LEN: usize = 8;

/// A secret that no log shows.
#[derive(Clone, PartialEq, Eq)]
struct Secret([u8; 32]);

impl Secret {
    fn new() -> Option<Self> {
        generate(&SystemRandom::new()).ok().map(|random| Self(random.expose()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(de::Error::custom)?;
        let bytes = bytes.try_into().map_err(|_length| de::Error::custom("not 32 bytes"))?;
        Ok(Self(bytes))
    }
}

/// The keys that tickets are made with, as one worker tells the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKeys {
    current: Secret,
    previous: Option<Secret>,
    /// When the current one came into use, in Unix time.
    since: u64,
}

/// The keys of a worker.
#[derive(Debug)]
pub struct Tickets {
    keys: RwLock<TicketKeys>,
}

impl Tickets {
    /// With keys of its own, until [others](Self::inherit) come. `None` if the system has no random
    /// numbers.
    #[must_use]
    pub fn new(now: SystemTime) -> Option<Self> {
        let keys = TicketKeys { current: Secret::new()?, previous: None, since: unix(now) };
        Some(Self { keys: RwLock::new(keys) })
    }

    /// For the next worker.
    #[must_use]
    pub fn keys(&self) -> TicketKeys {
        self.keys.read().clone()
    }

    /// Goes on with the keys of the worker before.
    pub fn inherit(&self, keys: TicketKeys) {
        *self.keys.write() = keys;
    }

    /// Makes a new key if the current one has been used long enough.
    pub fn rotate(&self, now: SystemTime) {
        let now = unix(now);
        let mut keys = self.keys.write();
        let age = now.saturating_sub(keys.since);
        if age >= KEY_AGE_MAX.as_secs()
            && let Some(new) = Secret::new()
        {
            let old = std::mem::replace(&mut keys.current, new);
            // One that nobody rotated in time has been used long enough to be forgotten.
            keys.previous = (age < 2 * KEY_AGE_MAX.as_secs()).then_some(old);
            keys.since = now;
        }
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The tickets of one listener.
#[derive(Debug)]
pub(super) struct ListenerTickets {
    tickets: Arc<Tickets>,
    /// Whatever decides who gets in.
    scope: Vec<u8>,
}

/// A key for one listener, and its name.
struct Derived {
    name: [u8; NAME_LEN],
    key: LessSafeKey,
}

impl ListenerTickets {
    pub(super) fn new(tickets: Arc<Tickets>, scope: Vec<u8>) -> Self {
        Self { tickets, scope }
    }

    fn derive(&self, secret: &Secret) -> Option<Derived> {
        let master = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
        let part = |purpose: &[u8]| {
            let mut context = hmac::Context::with_key(&master);
            context.update(purpose);
            context.update(&self.scope);
            context.sign()
        };
        let name = part(b"name").as_ref().first_chunk().copied()?;
        let key = UnboundKey::new(&AES_256_GCM, part(b"key").as_ref()).ok()?;
        Some(Derived { name, key: LessSafeKey::new(key) })
    }
}

impl ProducesTickets for ListenerTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let current = self.tickets.keys.read().current.clone();
        let Derived { name, key } = self.derive(&current)?;
        let nonce: [u8; NONCE_LEN] = generate(&SystemRandom::new()).ok()?.expose();
        let mut sealed = plain.to_vec();
        let aad = Aad::from(name);
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some([&name[..], &nonce[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.tickets.keys();
        let secrets = std::iter::once(&keys.current).chain(&keys.previous);
        let mut derived = secrets.filter_map(|secret| self.derive(secret));
        let Derived { key, .. } = derived.find(|derived| derived.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.open_in_place(nonce, Aad::from(*name), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(hours * 60 * 60)
    }

    fn of(tickets: &Arc<Tickets>, scope: &[u8]) -> ListenerTickets {
        ListenerTickets::new(Arc::clone(tickets), scope.to_vec())
    }

    #[test]
    fn a_ticket_is_read_by_the_worker_that_inherits_the_keys() {
        let (old, new) =
            (Arc::new(Tickets::new(at(1)).unwrap()), Arc::new(Tickets::new(at(2)).unwrap()));
        let ticket = of(&old, b"a").encrypt(b"session").unwrap();
        assert_eq!(of(&new, b"a").decrypt(&ticket), None);
        let told = serde_json::to_string(&old.keys()).unwrap();
        new.inherit(serde_json::from_str(&told).unwrap());
        assert_eq!(of(&new, b"a").decrypt(&ticket).unwrap(), b"session");
    }

    #[test]
    fn a_ticket_of_one_listener_is_worth_nothing_at_another() {
        let tickets = Arc::new(Tickets::new(at(1)).unwrap());
        let ticket = of(&tickets, b"a").encrypt(b"session").unwrap();
        assert_eq!(of(&tickets, b"b").decrypt(&ticket), None);
    }

    #[test]
    fn a_key_makes_tickets_for_twelve_hours_and_reads_them_for_twelve_more() {
        let tickets = Arc::new(Tickets::new(at(0)).unwrap());
        let listener = of(&tickets, b"a");
        let ticket = listener.encrypt(b"session").unwrap();
        let keys = tickets.keys();
        tickets.rotate(at(11));
        assert_eq!(tickets.keys(), keys, "not yet");
        tickets.rotate(at(12));
        assert_ne!(tickets.keys().current, keys.current);
        assert!(listener.decrypt(&ticket).is_some());
        tickets.rotate(at(24));
        assert_eq!(listener.decrypt(&ticket), None);
    }

    #[test]
    fn a_changed_ticket_is_none() {
        let listener = of(&Arc::new(Tickets::new(at(0)).unwrap()), b"a");
        let ticket = listener.encrypt(b"session").unwrap();
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(listener.decrypt(&changed), None, "byte {index}");
            assert_eq!(listener.decrypt(&ticket[..index]), None, "{index} bytes");
        }
    }

    #[test]
    fn no_log_shows_a_key() {
        let tickets = Tickets::new(at(0)).unwrap();
        let secret = BASE64.encode(tickets.keys().current.0);
        let shown = format!("{tickets:?}");
        assert!(shown.contains("Secret") && !shown.contains(&secret), "{shown}");
    }
}
