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
use super::files::{Material, Stamp};
use super::provider;
use super::stream::TlsStream;
use super::table::{Resolver, Table};
use super::tickets::{ListenerTickets, Tickets};
use crate::config::{Certificate, FilePath, Listener, Problem, Tls, TlsVersion};

/// Sessions of clients that speak TLS 1.2 without tickets.
const SESSIONS_MAX: usize = 1024;

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
    authority: Option<Watched<()>>,
}

/// What came of files when they were read last.
struct Watched<T> {
    value: T,
    /// Of the files that it was read from.
    good: Vec<Stamp>,
    bad: Option<Bad>,
}

/// Files that could not be used.
struct Bad {
    stamps: Vec<Stamp>,
    is_told: bool,
    /// When they may be better without having changed.
    until: Option<SystemTime>,
}

/// Why what was read is not used.
struct Unfit {
    problem: Problem,
    /// When it may be better.
    until: Option<SystemTime>,
}

impl From<Problem> for Unfit {
    fn from(problem: Problem) -> Self {
        Self { problem, until: None }
    }
}

impl<T> Watched<T> {
    fn new(value: T, good: Vec<Stamp>) -> Self {
        Self { value, good, bad: None }
    }

    /// Reads what has changed. A file that is renewed piece by piece is wrong for a moment: it is
    /// only told if it is still the same when it is looked at again.
    fn refresh(
        &mut self,
        files: &[&FilePath],
        now: SystemTime,
        read: impl FnOnce(&T) -> Result<T, Unfit>,
    ) -> Option<Result<(), Problem>> {
        let found = stamps(files);
        let is_bad = |bad: &&Bad| bad.stamps == found && bad.until.is_none_or(|until| now < until);
        let known_bad = self.bad.as_ref().filter(is_bad);
        if found == self.good || known_bad.is_some_and(|bad| bad.is_told) {
            return None;
        }
        let is_told = known_bad.is_some();
        match read(&self.value) {
            Ok(value) => {
                *self = Self::new(value, found);
                Some(Ok(()))
            }
            Err(Unfit { problem, until }) => {
                self.bad = Some(Bad { stamps: found, is_told, until });
                is_told.then_some(Err(problem))
            }
        }
    }
}

/// Reads a certificate that is to be used instead of `old`. One whose time is over, or has not
/// come, is worse than one that is still good.
fn renew(files: &Certificate, old: &Material, now: SystemTime) -> Result<Material, Unfit> {
    let new = Material::read(files)?;
    match new.untimely(&files.cert, now) {
        Some(problem) if old.untimely(&files.cert, now).is_none() => {
            let begins = Some(new.not_before).filter(|begins| now < *begins);
            // It expires at the end of this second.
            let ends = old.not_after + Duration::from_secs(1);
            let until = Some(begins.map_or(ends, |begins| begins.min(ends)));
            Err(Unfit { problem, until })
        }
        _ => Ok(new),
    }
}

fn stamps(files: &[&FilePath]) -> Vec<Stamp> {
    files.iter().map(|file| Stamp::of(&file.path)).collect()
}

/// What came of a look at the files.
#[derive(Debug, Default)]
pub struct Renewals {
    /// The files that are used from now on.
    pub done: Vec<String>,
    /// What cannot be used; the old one stays.
    pub refused: Vec<Problem>,
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
            Some(_) => Self::Failed,
            None => Self::Closed,
        }
    }
}

impl Terminator {
    /// Reads every file of `settings`, the TLS of `listener`.
    ///
    /// # Errors
    /// The first [`Problem`] with them.
    pub fn new(listener: &Listener, settings: Tls, tickets: Arc<Tickets>) -> Result<Self, Problem> {
        let (address, http2) = (listener.address, listener.http2);
        let read = |files: &Certificate| {
            let good = stamps(&[&files.cert, &files.key]);
            Material::read(files).map(|material| Watched::new(material, good))
        };
        let certificates: Result<Vec<_>, _> = settings.certificates.iter().map(read).collect();
        let authority = settings.client_auth.authority();
        let authority = authority.map(|authority| Watched::new((), stamps(&[authority])));
        let held = Held { certificates: certificates?, authority };
        let table = Table::new(held.certificates.iter().map(|one| &one.value));
        let table = Arc::new(ArcSwap::from_pointee(table));
        let current = current((address, &settings, http2), &tickets, &table)?;
        Ok(Self {
            settings,
            http2,
            scope: address,
            tickets,
            table,
            current: ArcSwap::from_pointee(current),
            held: Mutex::new(held),
        })
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
        let mut renewals = Renewals::default();
        let mut held = self.held.lock();
        let pairs = held.certificates.iter_mut().zip(&self.settings.certificates);
        for (watched, files) in pairs {
            let read = |old: &Material| renew(files, old, now);
            let outcome = watched.refresh(&[&files.cert, &files.key], now, read);
            note(&mut renewals, &files.cert, outcome);
        }
        if !renewals.done.is_empty() {
            self.table.store(Arc::new(Table::new(held.certificates.iter().map(|one| &one.value))));
        }
        if let (Some(watched), Some(authority)) =
            (&mut held.authority, self.settings.client_auth.authority())
        {
            let read = |(): &()| {
                let settings = (self.scope, &self.settings, self.http2);
                let current = current(settings, &self.tickets, &self.table)?;
                self.current.store(Arc::new(current));
                Ok(())
            };
            note(&mut renewals, authority, watched.refresh(&[authority], now, read));
        }
        renewals
    }

    /// Each certificate's file, and when it expires.
    #[must_use]
    pub fn expiries(&self) -> Vec<(String, SystemTime)> {
        let held = self.held.lock();
        let pairs = held.certificates.iter().zip(&self.settings.certificates);
        let expiry = |(watched, files): (&Watched<Material>, &Certificate)| {
            (files.cert.path.display().to_string(), watched.value.not_after)
        };
        pairs.map(expiry).collect()
    }
}

fn note(renewals: &mut Renewals, file: &FilePath, outcome: Option<Result<(), Problem>>) {
    match outcome {
        Some(Ok(())) => renewals.done.push(file.path.display().to_string()),
        Some(Err(problem)) => renewals.refused.push(problem),
        None => {}
    }
}

/// What handshakes are made with from now on.
fn current(
    (address, settings, http2): (SocketAddr, &Tls, bool),
    tickets: &Arc<Tickets>,
    table: &Arc<ArcSwap<Table>>,
) -> Result<Current, Problem> {
    let clients = Clients::new(&settings.client_auth)?;
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
    let mut server = builder.with_cert_resolver(Arc::new(Resolver(Arc::clone(table))));
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
