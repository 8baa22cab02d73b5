//! Where a listener's TLS ends: the handshake, and the renewal of what it needs.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::protocols::Stream;
use pingora_core::protocols::l4::stream::Stream as Socket;
use rustls::server::ServerSessionMemoryCache;
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use rustls_pki_types::UnixTime;
use tokio_rustls::TlsAcceptor;

use super::client::Clients;
use super::facts::Facts;
use super::files::Material;
use super::kept::{Contents, Kept};
use super::provider;
use super::stream::TlsStream;
use super::table::{Resolver, Table};
use super::tickets::{ListenerTickets, Tickets};
use super::watched::{Broken, Owner, Renewals, Standing, Watched};
use crate::config::{Listener, Problem, Tls, TlsVersion};

/// Sessions of clients that speak TLS 1.2 without tickets.
const SESSIONS_MAX: usize = 1024;

/// What rustls says when it is given no certificate.
const NOTHING_TO_SHOW: &str = "no server certificate chain resolved";

/// The TLS of one listener.
pub struct Terminator {
    settings: Tls,
    http2: bool,
    scope: SocketAddr,
    tickets: Arc<Tickets>,
    table: Arc<ArcSwap<Table>>,
    current: ArcSwap<Current>,
    held: Mutex<Held>,
}

/// What handshakes are made with.
struct Current {
    server: Arc<ServerConfig>,
    clients: Option<Clients>,
}

/// What was read from the files.
struct Held {
    certificates: Vec<Watched<Material>>,
    authority: Option<Watched<Clients>>,
}

impl Held {
    fn table(&self) -> Table {
        Table::new(self.certificates.iter().map(Watched::value))
    }
}

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Handshake {
    /// The client left in the middle.
    #[error("the client left")]
    Closed,
    /// What came was not TLS.
    #[error("what came is not TLS")]
    NotTls,
    /// Nothing that both sides know: version, cipher, protocol.
    #[error("no version, cipher or protocol that both sides know")]
    Incompatible,
    /// The client told us that it does not want to: mostly for our certificate.
    #[error("the client refused, which is mostly for our certificate")]
    Refused,
    /// The client's certificate is missing, or nobody vouches for it.
    #[error("no certificate of the client that `client_ca` vouches for")]
    ClientCertificate,
    /// What we would need for it is in a file that cannot be used.
    #[error("our certificate for it, or `client_ca`, is in a file that cannot be used")]
    Missing,
    /// Something else.
    #[error("it broke a rule")]
    Failed,
}

impl Handshake {
    fn of(error: &io::Error) -> Self {
        use rustls::Error;
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }) => Self::NotTls,
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => Self::Incompatible,
            Some(Error::AlertReceived(_)) => Self::Refused,
            Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => {
                Self::ClientCertificate
            }
            Some(Error::General(what)) if what == NOTHING_TO_SHOW => Self::Missing,
            Some(_) => Self::Failed,
            None => Self::Closed,
        }
    }
}

impl Terminator {
    /// Reads every file of `settings`, the TLS of `listener`, or where one cannot be used what was
    /// `kept` of it. What is missing then makes the handshakes fail that need it.
    ///
    /// # Errors
    /// These settings are none to shake hands with.
    pub fn new(
        listener: &Listener,
        settings: Tls,
        tickets: Arc<Tickets>,
        (kept, now): (&Kept, SystemTime),
    ) -> Result<(Self, Renewals), Problem> {
        let (address, http2) = (listener.address, listener.http2);
        let mut found = Renewals::new(Owner::Listener(address));
        let mut certificates = Vec::with_capacity(settings.certificates.len());
        for files in &settings.certificates {
            let read = |contents: &[Contents], old: Option<&Material>| {
                Material::renew(files, contents, old, now)
            };
            let (watched, broken) = Watched::open(&[&files.cert, &files.key], kept, read);
            certificates.push(watched);
            found.refused.extend(broken);
        }
        let authority = settings.client_auth.authority().map(|authority| {
            let read = |contents: &[Contents], _: Option<&Clients>| {
                Ok(Clients::of(&settings.client_auth, authority, contents)?)
            };
            let (watched, broken) = Watched::open(&[authority], kept, read);
            found.refused.extend(broken);
            watched
        });
        let held = Held { certificates, authority };
        let table = Arc::new(ArcSwap::from_pointee(held.table()));
        let authority = held.authority.as_ref();
        let current = current((address, &settings, http2), &tickets, &table, authority)?;
        let terminator = Self {
            settings,
            http2,
            scope: address,
            tickets,
            table,
            current: ArcSwap::from_pointee(current),
            held: Mutex::new(held),
        };
        Ok((terminator, found))
    }

    /// Shakes hands. The caller says how long it may take.
    ///
    /// # Errors
    /// [`Handshake`]
    pub async fn accept(
        &self,
        socket: Box<Socket>,
        now: SystemTime,
    ) -> Result<(Stream, Facts), Handshake> {
        let current = self.current.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&current.server));
        let stream = acceptor.accept(socket).await.map_err(|error| Handshake::of(&error))?;
        let facts = facts(stream.get_ref().1, current.clients.as_ref(), now);
        let client = facts.client.as_ref();
        if current.clients.as_ref().is_some_and(|clients| !clients.admit(client)) {
            return Err(Handshake::ClientCertificate);
        }
        Ok((Box::new(TlsStream::new(stream, &facts)), facts))
    }

    /// Whether clients are asked for certificates, and the one of ours for `host` is not the one
    /// for `server_name`.
    #[must_use]
    pub fn is_misdirected(&self, server_name: Option<&str>, host: &str) -> bool {
        if self.current.load().clients.is_none() {
            return false;
        }
        let table = self.table.load();
        table.place(server_name.unwrap_or_default()) != table.place(host)
    }

    /// Looks whether files have changed, and uses those that have. Blocks while it reads.
    pub fn refresh(&self, now: SystemTime) -> Renewals {
        let mut renewals = Renewals::new(Owner::Listener(self.scope));
        let mut held = self.held.lock();
        let mut changed = false;
        for (watched, files) in held.certificates.iter_mut().zip(&self.settings.certificates) {
            let outcome =
                watched.refresh(now, |contents, old| Material::renew(files, contents, old, now));
            changed |= renewals.note(watched, outcome);
        }
        if changed {
            self.table.store(Arc::new(held.table()));
        }
        if let (Some(watched), Some(authority)) =
            (&mut held.authority, self.settings.client_auth.authority())
        {
            let auth = &self.settings.client_auth;
            let outcome = watched
                .refresh(now, |contents, _| Ok(Clients::of(auth, authority, contents)?))
                .map(|outcome| outcome.and_then(|()| self.vouch(watched)));
            renewals.note(watched, outcome);
        }
        renewals
    }

    /// Others vouch for clients from now on.
    fn vouch(&self, authority: &Watched<Clients>) -> Result<(), Broken> {
        let settings = (self.scope, &self.settings, self.http2);
        let current = current(settings, &self.tickets, &self.table, Some(authority));
        self.current.store(Arc::new(current.map_err(|problem| authority.broken(problem))?));
        Ok(())
    }

    /// How things stand with each file.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        let held = self.held.lock();
        let certificates = held.certificates.iter();
        let certificates = certificates.map(|one| one.standing(|value| Some(value.not_after)));
        let authority = held.authority.iter().map(|one| one.standing(|_| None));
        certificates.chain(authority).collect()
    }

    /// What is used, for the next worker.
    pub fn keep(&self, kept: &mut Kept) {
        let held = self.held.lock();
        held.certificates.iter().for_each(|one| one.keep(kept));
        held.authority.iter().for_each(|one| one.keep(kept));
    }
}

/// What handshakes are made with from now on.
fn current(
    (address, settings, http2): (SocketAddr, &Tls, bool),
    tickets: &Arc<Tickets>,
    table: &Arc<ArcSwap<Table>>,
    authority: Option<&Watched<Clients>>,
) -> Result<Current, Problem> {
    let clients = authority.and_then(Watched::value).cloned();
    // As long as nobody knows who vouches for clients, none gets in: there is nothing to show it.
    let table = match authority {
        Some(authority) if authority.value().is_none() => Arc::default(),
        _ => Arc::clone(table),
    };
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| Problem { at: None, what: error.to_string(), help: None })?;
    let builder = match &clients {
        Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(Resolver(table)));
    // Some clients of HTTP/1.0 say so here, too, and would be turned away.
    let protocols: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];
    let protocols = protocols.iter().skip(if http2 { 0 } else { 1 });
    server.alpn_protocols = protocols.map(|protocol| protocol.to_vec()).collect();
    let scope = scope(address, settings, clients.as_ref());
    server.ticketer = Arc::new(ListenerTickets::new(Arc::clone(tickets), scope));
    server.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    Ok(Current { server: Arc::new(server), clients })
}

/// Whatever decides who gets in, so that no session gets around it.
fn scope(address: SocketAddr, settings: &Tls, clients: Option<&Clients>) -> Vec<u8> {
    let mut scope = format!("{address} {:?}", settings.min_version).into_bytes();
    scope.extend(clients.map(Clients::scope).unwrap_or_default());
    scope
}

fn facts(connection: &ServerConnection, clients: Option<&Clients>, now: SystemTime) -> Facts {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = UnixTime::since_unix_epoch(since_epoch);
    let chain = connection.peer_certificates().unwrap_or_default();
    let suite = connection.negotiated_cipher_suite();
    Facts {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        cipher: suite.and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        server_name: connection.server_name().map(str::to_ascii_lowercase),
        http2: connection.alpn_protocol() == Some(b"h2"),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        client: clients.and_then(|clients| clients.identity(chain, now)),
    }
}

impl fmt::Debug for Terminator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Terminator").field("scope", &self.scope).finish_non_exhaustive()
    }
}
