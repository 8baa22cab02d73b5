//! Session tickets that survive a reload.
//!
//! A ticket is a session, encrypted with a key that only Weir knows, and stored by the client.
//! Workers pass the keys on to their successors, so a client can resume its session with any
//! worker. A key encrypts tickets for twelve hours, and decrypts them for twelve more. A key that
//! is stolen later cannot decrypt older sessions.
//!
//! Each listener uses its own key, derived from the common key and from everything that decides
//! which clients are admitted there. A session of one listener is not valid on another, nor after
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

/// How long a key encrypts tickets.
const KEY_AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);
/// The maximum lifetime of a ticket: as long as its key decrypts.
const LIFETIME_SECONDS: u32 = 12 * 60 * 60;
/// The length of the key name at the start of a ticket.
const NAME_LEN: usize = 8;

/// A secret that `Debug` does not show.
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

/// The ticket keys, as passed on to the next worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKeys {
    current: Secret,
    previous: Option<Secret>,
    /// When the current key came into use, in Unix time.
    since: u64,
}

/// The ticket keys of a worker.
#[derive(Debug)]
pub struct Tickets {
    keys: RwLock<TicketKeys>,
}

impl Tickets {
    /// Creates new keys, to be used until [`Self::import`] replaces them. Returns `None` if the
    /// system has no random numbers.
    #[must_use]
    pub fn new(now: SystemTime) -> Option<Self> {
        let keys = TicketKeys { current: Secret::new()?, previous: None, since: unix(now) };
        Some(Self { keys: RwLock::new(keys) })
    }

    /// The keys, for the next worker.
    #[must_use]
    pub fn export(&self) -> TicketKeys {
        self.keys.read().clone()
    }

    /// Replaces the keys by those of the previous worker.
    pub fn import(&self, keys: TicketKeys) {
        *self.keys.write() = keys;
    }

    /// Creates a new key if the current one is too old.
    pub fn rotate(&self, now: SystemTime) {
        let now = unix(now);
        let mut keys = self.keys.write();
        let age = now.saturating_sub(keys.since);
        if age >= KEY_AGE_MAX.as_secs()
            && let Some(new) = Secret::new()
        {
            let old = std::mem::replace(&mut keys.current, new);
            // A key that was not rotated in time is already too old for decryption too.
            keys.previous = (age < 2 * KEY_AGE_MAX.as_secs()).then_some(old);
            keys.since = now;
        }
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The session tickets of one listener.
#[derive(Debug)]
pub(super) struct ListenerTickets {
    tickets: Arc<Tickets>,
    /// Everything that decides which clients are admitted.
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
        let keys = self.tickets.export();
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
    fn the_next_worker_decrypts_tickets_of_the_previous_one() {
        let (old, new) =
            (Arc::new(Tickets::new(at(1)).unwrap()), Arc::new(Tickets::new(at(2)).unwrap()));
        let ticket = of(&old, b"a").encrypt(b"session").unwrap();
        assert_eq!(of(&new, b"a").decrypt(&ticket), None);
        let exported = serde_json::to_string(&old.export()).unwrap();
        new.import(serde_json::from_str(&exported).unwrap());
        assert_eq!(of(&new, b"a").decrypt(&ticket).unwrap(), b"session");
    }

    #[test]
    fn a_ticket_of_one_listener_is_not_valid_on_another() {
        let tickets = Arc::new(Tickets::new(at(1)).unwrap());
        let ticket = of(&tickets, b"a").encrypt(b"session").unwrap();
        assert_eq!(of(&tickets, b"b").decrypt(&ticket), None);
    }

    #[test]
    fn a_key_encrypts_for_twelve_hours_and_decrypts_for_twelve_more() {
        let tickets = Arc::new(Tickets::new(at(0)).unwrap());
        let listener = of(&tickets, b"a");
        let ticket = listener.encrypt(b"session").unwrap();
        let keys = tickets.export();
        tickets.rotate(at(11));
        assert_eq!(tickets.export(), keys, "not yet");
        tickets.rotate(at(12));
        assert_ne!(tickets.export().current, keys.current);
        assert!(listener.decrypt(&ticket).is_some());
        tickets.rotate(at(24));
        assert_eq!(listener.decrypt(&ticket), None);
    }

    #[test]
    fn a_modified_ticket_is_rejected() {
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
        let secret = BASE64.encode(tickets.export().current.0);
        let shown = format!("{tickets:?}");
        assert!(shown.contains("Secret") && !shown.contains(&secret), "{shown}");
    }
}
