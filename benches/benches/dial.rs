//! What a new connection to a TLS backend costs beside its handshake. Pingora's connector makes
//! rustls' configuration anew for each where a pool has a `ca` or a certificate of its own
//! (docs/adr/0006); this does the same steps. Without either it makes a copy of a common one.

#![expect(clippy::unwrap_used, reason = "a benchmark may fail by panicking")]

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::Arc;

use divan::Bencher;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    divan::main();
}

struct World {
    authority: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// An authority, and a certificate with an ECDSA key by it.
fn world() -> World {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["web.internal".to_owned()]).unwrap();
    let chain = vec![params.signed_by(&key, &issuer).unwrap().der().clone()];
    World { authority, chain, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
}

fn roots(authorities: &[CertificateDer<'static>]) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).unwrap();
    }
    Arc::new(roots)
}

fn config(roots: Arc<RootCertStore>, shown: Option<&World>) -> ClientConfig {
    let builder = ClientConfig::builder_with_protocol_versions(&[&TLS12, &TLS13])
        .with_root_certificates(roots);
    let mut config = match shown {
        Some(world) => {
            builder.with_client_auth_cert(world.chain.clone(), world.key.clone_key()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

#[divan::bench]
fn a_copy_of_the_common_configuration(bencher: Bencher<'_, '_>) {
    let common = config(roots(&[world().authority]), None);
    bencher.bench_local(|| {
        let mut config = black_box(&common).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    });
}

#[divan::bench(args = [1, 10, 140])]
fn anew_with_a_ca_of(bencher: Bencher<'_, '_>, count: usize) {
    let authorities = vec![world().authority; count];
    bencher.bench_local(|| Arc::new(config(roots(black_box(&authorities)), None)));
}

#[divan::bench]
fn anew_with_a_ca_and_an_ecdsa_certificate(bencher: Bencher<'_, '_>) {
    let world = world();
    let authorities = [world.authority.clone()];
    bencher.bench_local(|| Arc::new(config(roots(black_box(&authorities)), Some(&world))));
}

/// ring makes no RSA keys: `openssl` has to be there.
fn rsa() -> World {
    let directory = std::env::temp_dir();
    let file = |name| directory.join(format!("weir-dial-{}-{name}", std::process::id()));
    let (key, cert) = (file("key"), file("crt"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=weir", "-keyout"]);
    openssl.arg(&key).arg("-out").arg(&cert).stderr(Stdio::null());
    assert!(openssl.status().unwrap().success());
    let shown = World {
        authority: world().authority,
        chain: vec![CertificateDer::from_pem_file(&cert).unwrap()],
        key: PrivateKeyDer::from_pem_file(&key).unwrap(),
    };
    std::fs::remove_file(key).unwrap();
    std::fs::remove_file(cert).unwrap();
    shown
}

#[divan::bench]
fn anew_with_a_ca_and_an_rsa_certificate(bencher: Bencher<'_, '_>) {
    let world = rsa();
    let authorities = [world.authority.clone()];
    bencher.bench_local(|| Arc::new(config(roots(black_box(&authorities)), Some(&world))));
}

fn server(world: &World) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut server = builder.with_single_cert(world.chain.clone(), world.key.clone_key()).unwrap();
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(server)
}

/// Both ends of a handshake, in memory, until the client has its tickets.
fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> ClientConnection {
    let name = ServerName::try_from("web.internal").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut bytes = Vec::new();
    while client.wants_write() || server.wants_write() {
        client.write_tls(&mut bytes).unwrap();
        let mut sent = bytes.as_slice();
        while !sent.is_empty() {
            server.read_tls(&mut sent).unwrap();
            server.process_new_packets().unwrap();
        }
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        let mut sent = bytes.as_slice();
        while !sent.is_empty() {
            client.read_tls(&mut sent).unwrap();
            client.process_new_packets().unwrap();
        }
        bytes.clear();
    }
    client
}

#[divan::bench]
fn a_whole_handshake_of_both_ends(bencher: Bencher<'_, '_>) {
    let world = world();
    let (authorities, server) = ([world.authority.clone()], server(&world));
    // Nobody's sessions are kept, as where the configuration is made anew.
    let mut client = config(roots(&authorities), None);
    client.resumption = rustls::client::Resumption::disabled();
    let client = Arc::new(client);
    bencher.bench_local(|| shake(black_box(&client), &server));
}

#[divan::bench]
fn a_resumed_handshake_of_both_ends(bencher: Bencher<'_, '_>) {
    let world = world();
    let (authorities, server) = ([world.authority.clone()], server(&world));
    let client = Arc::new(config(roots(&authorities), None));
    shake(&client, &server);
    bencher.bench_local(|| {
        let shaken = shake(black_box(&client), &server);
        assert_eq!(shaken.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    });
}
