//! TLS termination for a listener: the handshake, and the reloading of certificates.

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

use super::client::ClientVerifier;
use super::files::CertificateAndKey;
use super::handshake_info::HandshakeInfo;
use super::last_good::{Contents, LastGoodFiles};
use super::provider;
use super::reloadable::{FileFailure, FileStatus, Owner, RefreshReport, ReloadableFiles};
use super::stream::TlsStream;
use super::table::{CertificateResolver, CertificateTable};
use super::tickets::{ListenerTickets, Tickets};
use crate::config::{Listener, Problem, Tls, TlsVersion};

/// The number of cached sessions of TLS 1.2 clients without tickets.
const SESSIONS_MAX: usize = 1024;

/// The text of rustls' error if there is no certificate.
const NO_CERTIFICATE: &str = "no server certificate chain resolved";

/// TLS termination for one listener.
pub struct Terminator {
    settings: Tls,
    http2: bool,
    scope: SocketAddr,
    tickets: Arc<Tickets>,
    table: Arc<ArcSwap<CertificateTable>>,
    current: ArcSwap<Current>,
    files: Mutex<ListenerFiles>,
}

/// What handshakes use.
struct Current {
    server: Arc<ServerConfig>,
    clients: Option<ClientVerifier>,
}

/// The files of the listener.
struct ListenerFiles {
    certificates: Vec<ReloadableFiles<CertificateAndKey>>,
    authority: Option<ReloadableFiles<ClientVerifier>>,
}

impl ListenerFiles {
    fn table(&self) -> CertificateTable {
        CertificateTable::new(self.certificates.iter().map(ReloadableFiles::value))
    }
}

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Handshake {
    /// The client disconnected during the handshake.
    #[error("the client left")]
    Closed,
    /// The bytes received are not TLS.
    #[error("what came is not TLS")]
    NotTls,
    /// Client and server have no common version, cipher or protocol.
    #[error("no version, cipher or protocol that both sides know")]
    Incompatible,
    /// The client sent an alert, mostly because it does not accept our certificate.
    #[error("the client refused, which is mostly for our certificate")]
    Refused,
    /// The client's certificate is missing or not trusted.
    #[error("no client certificate that `client_ca` verifies")]
    ClientCertificate,
    /// A certificate or CA that the handshake needs is in an unusable file.
    #[error("our certificate for it, or `client_ca`, is in a file that cannot be used")]
    Missing,
    /// Any other error.
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
            Some(Error::General(what)) if what == NO_CERTIFICATE => Self::Missing,
            Some(_) => Self::Failed,
            None => Self::Closed,
        }
    }
}

impl Terminator {
    /// Reads every file of `settings`, the TLS settings of `listener`. For a file that cannot be
    /// used, the contents in `last_good` are used. If there are none, handshakes that need it fail.
    ///
    /// # Errors
    /// The settings cannot be used for a handshake.
    pub fn new(
        listener: &Listener,
        settings: Tls,
        tickets: Arc<Tickets>,
        last_good: &LastGoodFiles,
        now: SystemTime,
    ) -> Result<(Self, RefreshReport), Problem> {
        let (address, http2) = (listener.address, listener.http2);
        let mut found = RefreshReport::new(Owner::Listener(address));
        let mut certificates = Vec::with_capacity(settings.certificates.len());
        for files in &settings.certificates {
            let read = |contents: &[Contents], old: Option<&CertificateAndKey>| {
                CertificateAndKey::renew(files, contents, old, now)
            };
            let (reloadable, broken) =
                ReloadableFiles::open(&[&files.cert, &files.key], last_good, read);
            certificates.push(reloadable);
            found.failed.extend(broken);
        }
        let authority = settings.client_auth.authority().map(|authority| {
            let read = |contents: &[Contents], _: Option<&ClientVerifier>| {
                Ok(ClientVerifier::of(&settings.client_auth, authority, contents)?)
            };
            let (reloadable, broken) = ReloadableFiles::open(&[authority], last_good, read);
            found.failed.extend(broken);
            reloadable
        });
        let files = ListenerFiles { certificates, authority };
        let table = Arc::new(ArcSwap::from_pointee(files.table()));
        let authority = files.authority.as_ref();
        let listener = ListenerTls { address, settings: &settings, http2 };
        let current = current(listener, &tickets, &table, authority)?;
        let terminator = Self {
            settings,
            http2,
            scope: address,
            tickets,
            table,
            current: ArcSwap::from_pointee(current),
            files: Mutex::new(files),
        };
        Ok((terminator, found))
    }

    /// Does the handshake. The caller sets the timeout.
    ///
    /// # Errors
    /// [`Handshake`]
    pub async fn accept(
        &self,
        socket: Box<Socket>,
        now: SystemTime,
    ) -> Result<(Stream, HandshakeInfo), Handshake> {
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

    /// Whether client certificates are requested, and `host` has another certificate than
    /// `server_name`.
    #[must_use]
    pub fn is_misdirected(&self, server_name: Option<&str>, host: &str) -> bool {
        if self.current.load().clients.is_none() {
            return false;
        }
        let table = self.table.load();
        table.place(server_name.unwrap_or_default()) != table.place(host)
    }

    /// Checks whether files have changed, and uses those that have. Blocks while it reads.
    pub fn refresh(&self, now: SystemTime) -> RefreshReport {
        let mut report = RefreshReport::new(Owner::Listener(self.scope));
        let mut files = self.files.lock();
        let mut changed = false;
        for (reloadable, files) in files.certificates.iter_mut().zip(&self.settings.certificates) {
            let outcome = reloadable
                .refresh(now, |contents, old| CertificateAndKey::renew(files, contents, old, now));
            changed |= report.note(reloadable, outcome);
        }
        if changed {
            self.table.store(Arc::new(files.table()));
        }
        if let (Some(reloadable), Some(authority)) =
            (&mut files.authority, self.settings.client_auth.authority())
        {
            let auth = &self.settings.client_auth;
            let outcome = reloadable
                .refresh(now, |contents, _| Ok(ClientVerifier::of(auth, authority, contents)?))
                .map(|outcome| outcome.and_then(|()| self.replace_client_ca(reloadable)));
            report.note(reloadable, outcome);
        }
        report
    }

    /// Uses a changed client CA from now on.
    fn replace_client_ca(
        &self,
        authority: &ReloadableFiles<ClientVerifier>,
    ) -> Result<(), FileFailure> {
        let (address, settings) = (self.scope, &self.settings);
        let listener = ListenerTls { address, settings, http2: self.http2 };
        let current = current(listener, &self.tickets, &self.table, Some(authority));
        self.current.store(Arc::new(current.map_err(|problem| authority.broken(problem))?));
        Ok(())
    }

    /// The status of each file.
    #[must_use]
    pub fn statuses(&self) -> Vec<FileStatus> {
        let files = self.files.lock();
        let certificates = files.certificates.iter();
        let certificates = certificates.map(|one| one.status(|value| Some(value.not_after)));
        let authority = files.authority.iter().map(|one| one.status(|_| None));
        certificates.chain(authority).collect()
    }

    /// Adds the contents in use, for the next worker.
    pub fn export(&self, last_good: &mut LastGoodFiles) {
        let files = self.files.lock();
        files.certificates.iter().for_each(|one| one.export(last_good));
        files.authority.iter().for_each(|one| one.export(last_good));
    }
}

/// The TLS settings of one listener.
#[derive(Clone, Copy)]
struct ListenerTls<'a> {
    address: SocketAddr,
    settings: &'a Tls,
    http2: bool,
}

/// Builds what handshakes use from now on.
fn current(
    listener: ListenerTls<'_>,
    tickets: &Arc<Tickets>,
    table: &Arc<ArcSwap<CertificateTable>>,
    authority: Option<&ReloadableFiles<ClientVerifier>>,
) -> Result<Current, Problem> {
    let ListenerTls { address, settings, http2 } = listener;
    let clients = authority.and_then(ReloadableFiles::value).cloned();
    // While the client CA is unknown, no client can be verified. Without certificates, every
    // handshake fails.
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
    let mut server = builder.with_cert_resolver(Arc::new(CertificateResolver(table)));
    // Some HTTP/1.0 clients send this in ALPN, and would be rejected otherwise.
    let protocols: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];
    let protocols = protocols.iter().skip(if http2 { 0 } else { 1 });
    server.alpn_protocols = protocols.map(|protocol| protocol.to_vec()).collect();
    let scope = scope(address, settings, clients.as_ref());
    server.ticketer = Arc::new(ListenerTickets::new(Arc::clone(tickets), scope));
    server.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    Ok(Current { server: Arc::new(server), clients })
}

/// Everything that decides which clients are admitted. Sessions are bound to it.
fn scope(address: SocketAddr, settings: &Tls, clients: Option<&ClientVerifier>) -> Vec<u8> {
    let mut scope = format!("{address} {:?}", settings.min_version).into_bytes();
    scope.extend(clients.map(ClientVerifier::scope).unwrap_or_default());
    scope
}

fn facts(
    connection: &ServerConnection,
    clients: Option<&ClientVerifier>,
    now: SystemTime,
) -> HandshakeInfo {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = UnixTime::since_unix_epoch(since_epoch);
    let chain = connection.peer_certificates().unwrap_or_default();
    let suite = connection.negotiated_cipher_suite();
    HandshakeInfo {
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
