//! Certificates made for a test, and a client that speaks TLS and says what it saw.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, RootCertStore,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use super::TIMEOUT;
use super::client::{Response, request_bytes};
use super::message::{Framing, content_length, find, parse_head};

/// Signs the certificates of a test, and keeps its files in a directory of its own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    directory: PathBuf,
}

/// A certificate in two files.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("weir-tls-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("Authority {number}"));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.join("ca.crt"), certificate.pem()).unwrap();
        let certificate = certificate.der().clone();
        Self { issuer: Issuer::new(params, key), certificate, directory }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// The file of those that vouch.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// A certificate for these names, in `file.crt` and `file.key`.
    pub(crate) fn identity(&self, file: &str, names: &[&str]) -> Identity {
        self.identity_with(file, names, |_| {})
    }

    /// The same, with its parameters changed.
    pub(crate) fn identity_with(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let identity = Identity {
            cert: self.path(&format!("{file}.crt")),
            key: self.path(&format!("{file}.key")),
        };
        write_at_once(&identity.key, &key.serialize_pem());
        write_at_once(&identity.cert, &certificate.pem());
        identity
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.directory);
    }
}

/// Replaces a file atomically, as renewals do.
pub(crate) fn write_at_once(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

impl Identity {
    /// As a configuration names it.
    pub(crate) fn yaml(&self) -> String {
        format!("{{cert: {}, key: {}}}", self.cert.display(), self.key.display())
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).unwrap()
    }
}

/// How a client speaks TLS. Sessions are kept, and resumed by the next connection.
pub(crate) struct TlsConfig {
    config: ClientConfig,
    from: Option<Ipv4Addr>,
    first: Vec<u8>,
}

impl TlsConfig {
    /// Trusts `authority`, and shows `identity` if it is asked.
    pub(crate) fn new(authority: &Authority, identity: Option<&Identity>) -> Self {
        Self::of(authority, identity, rustls::ALL_VERSIONS)
    }

    pub(crate) fn of(
        authority: &Authority,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).unwrap();
        let roots = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
        let verifier = AnyName(roots.build().unwrap());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match identity {
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
                builder.with_client_auth_cert(vec![identity.der()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        Self { config, from: None, first: Vec::new() }
    }

    /// Offers these protocols.
    pub(crate) fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        self
    }

    /// Connects from there and says `first` ahead of the handshake.
    pub(crate) fn behind(mut self, from: Ipv4Addr, first: &[u8]) -> Self {
        self.from = Some(from);
        self.first = first.to_vec();
        self
    }

    /// Asks for no name.
    pub(crate) fn nameless(mut self) -> Self {
        self.config.enable_sni = false;
        self
    }

    pub(crate) fn rustls(&self) -> Arc<ClientConfig> {
        Arc::new(self.config.clone())
    }

    #[track_caller]
    pub(crate) fn connect(&self, to: SocketAddr, name: &str) -> TlsClient {
        self.try_connect(to, name).unwrap_or_else(|error| panic!("TLS with {name}: {error}"))
    }

    /// Connects and shakes hands. With TLS 1.3 a client learns with its first answer at the latest
    /// that its certificate was refused.
    pub(crate) fn try_connect(&self, to: SocketAddr, name: &str) -> io::Result<TlsClient> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        if let Some(from) = self.from {
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        socket.connect_timeout(&to.into(), TIMEOUT)?;
        let mut socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.write_all(&self.first)?;
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(self.rustls(), name).map_err(io::Error::other)?;
        let mut client = TlsClient { stream: StreamOwned::new(connection, socket) };
        while client.stream.conn.is_handshaking() {
            client.stream.conn.complete_io(&mut client.stream.sock)?;
        }
        Ok(client)
    }
}

/// One connection.
pub(crate) struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl TlsClient {
    /// The certificate that the server showed.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.stream.conn.peer_certificates().unwrap().first().unwrap().clone().into_owned()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(crate) fn alpn(&self) -> Option<String> {
        self.stream.conn.alpn_protocol().map(|it| String::from_utf8_lossy(it).into_owned())
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Response {
        self.try_get(target, headers).unwrap_or_else(|error| panic!("GET {target}: {error}"))
    }

    /// `GET`, and an answer with a length.
    pub(crate) fn try_get(
        &mut self,
        target: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Response> {
        self.stream.write_all(&request_bytes("GET", target, headers, 0))?;
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = find(&bytes, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill(&mut bytes)?;
        };
        let head = parse_head(&String::from_utf8_lossy(&bytes[..end])).unwrap();
        let length = content_length(&head).unwrap().expect("an answer with a length");
        while bytes.len() < end + length {
            self.fill(&mut bytes)?;
        }
        let body = bytes[end..].to_vec();
        let framing = Framing::ContentLength;
        Ok(Response { head, body, framing, trailers: Vec::new(), interim: Vec::new() })
    }

    /// The connection for another protocol, with this timeout for each read.
    pub(crate) fn into_stream(self, patience: Duration) -> impl Read + Write {
        self.stream.sock.set_read_timeout(Some(patience)).unwrap();
        self.stream
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sending");
    }

    /// Says that nothing more is going to be sent; the connection stays.
    #[track_caller]
    pub(crate) fn close_notify(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().expect("saying that it ends");
    }

    /// All that the server still sends, to the end of the connection, however it ends.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => panic!("{error}"),
            _ => rest,
        }
    }

    /// Whether the server ends the connection in the way that TLS asks for.
    pub(crate) fn is_ended_cleanly(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 64]), Ok(0))
    }

    fn fill(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut piece = [0; 16_384];
        match self.stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                bytes.extend_from_slice(&piece[..count]);
                Ok(())
            }
        }
    }
}

/// Accepts every certificate for every name: tests compare the certificate themselves.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        match self.0.verify_server_cert(leaf, rest, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
