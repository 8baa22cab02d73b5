//! Terminates TLS in front of a plaintext backend: performs the handshake, records what the client
//! sent, and forwards the bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::ports;
use super::tls::{Authority, Identity};

/// A completed handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shake {
    /// The server name (SNI) that the client requested.
    pub(crate) name: Option<String>,
    pub(crate) protocol: Option<String>,
    /// The certificate that the client presented.
    pub(crate) client: Option<CertificateDer<'static>>,
}

/// A running TLS server. Dropping it stops it.
pub(crate) struct TlsFront {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct Seen {
    shakes: Vec<Shake>,
    failed: usize,
}

impl TlsFront {
    /// Starts in front of the server at `behind`, on its own address.
    pub(crate) fn start(behind: SocketAddr, identity: &Identity) -> Self {
        Self::with(ports::own_socket(3443), behind, identity, None, &[])
    }

    /// Starts on `address` with an authority for client certificates and a list of ALPN protocols.
    pub(crate) fn with(
        address: SocketAddr,
        behind: SocketAddr,
        identity: &Identity,
        clients: Option<&Authority>,
        protocols: &[&str],
    ) -> Self {
        let config = Arc::new(config(identity, clients, protocols));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let seen = Arc::<Mutex<Seen>>::default();
        let listener = runtime.block_on(TcpListener::bind(address)).expect("binding");
        let recorded = Arc::clone(&seen);
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(
                    socket,
                    behind,
                    TlsAcceptor::from(Arc::clone(&config)),
                    Arc::clone(&recorded),
                ));
            }
        });
        Self { address, seen, _runtime: runtime }
    }

    /// As it is written in a configuration.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn shakes(&self) -> Vec<Shake> {
        self.seen().shakes.clone()
    }

    /// Connections that came to no handshake.
    pub(crate) fn failed(&self) -> usize {
        self.seen().failed
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("a task of the front panicked")
    }
}

async fn serve(socket: TcpStream, behind: SocketAddr, tls: TlsAcceptor, seen: Arc<Mutex<Seen>>) {
    let Ok(mut stream) = tls.accept(socket).await else {
        seen.lock().expect("a task panicked").failed += 1;
        return;
    };
    let (_, connection) = stream.get_ref();
    let certificates = connection.peer_certificates().unwrap_or_default();
    let protocol = connection.alpn_protocol();
    let shake = Shake {
        name: connection.server_name().map(str::to_owned),
        protocol: protocol.map(|it| String::from_utf8_lossy(it).into_owned()),
        client: certificates.first().cloned().map(CertificateDer::into_owned),
    };
    seen.lock().expect("a task panicked").shakes.push(shake);
    if let Ok(mut backend) = TcpStream::connect(behind).await {
        // An error means that one side disconnected.
        drop(copy_bidirectional(&mut stream, &mut backend).await);
    }
}

fn config(identity: &Identity, clients: Option<&Authority>, protocols: &[&str]) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            let ca = CertificateDer::from_pem_file(authority.ca()).expect("the authority");
            roots.add(ca).expect("an authority");
            let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(clients.build().expect("a verifier"))
        }
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
    let mut config = builder.with_single_cert(vec![identity.der()], key).expect("a certificate");
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    config
}
