//! Listeners as written in the file.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::super::read::{Keyword, KeywordValue, List, section};
use super::super::terms::TlsVersion;
use super::super::value::FileName;

section! {
    /// An address on which Weir accepts client connections. A plain address is short for `{address: …}`.
    RawListener at "listeners[]"
        or (address: SocketAddr)
        named "listener" by ["address"];

    /// IP address and port. `0.0.0.0` is every IPv4 address of the machine, `[::]` every IPv6 address.
    address: SocketAddr = required, "0.0.0.0:8080", MovesSockets;
    /// TLS with clients. File names are relative to the directory of the configuration file.
    tls: RawTls = optional("plaintext"), "{certificates: [{cert: site.crt, key: site.key}]}";
    /// Whether clients may use HTTP/2. With TLS it is negotiated by ALPN; in plaintext, a client starts with
    /// it (h2c with prior knowledge).
    http2: bool = computed("`true` with `tls`, else `false`", |it| it.tls.is_some()), "true";
    /// Accepts the PROXY protocol from proxies in front of Weir.
    proxy_protocol: RawProxyProtocol = optional("PROXY headers are rejected"), "{from: [10.0.0.0/8]}";
}

section! {
    /// TLS with clients. Weir checks the files every few seconds. New contents are used for new connections,
    /// without a reload. If a file cannot be used, Weir logs an error and keeps the previous contents. It
    /// also keeps a certificate that is still valid when the new one has expired or is not valid yet. At a
    /// start or reload such a certificate is used, with a warning in the log; `weir check` reports it as a
    /// problem.
    RawTls at "listeners[].tls";

    /// Certificates and their keys. The certificate is chosen by the server name that the client asks for
    /// (SNI): first an exact match, then a wildcard (`*.example.com`), else the first of the list.
    certificates: List<RawCertificate> = required, "[{cert: site.crt, key: site.key}]";
    /// Oldest TLS version that is accepted: 1.2 or 1.3.
    min_version: KeywordValue<TlsVersion> = default(TlsVersion::V1_2), "\"1.3\"";
    /// File with the CA certificates that client certificates are verified against, in PEM.
    client_ca: FileName = optional("clients are not asked for a certificate"), "clients.crt";
    /// Whether clients must present a certificate (mutual TLS). `require`: a client needs a certificate that
    /// `client_ca` has signed. `request`: a certificate is optional, and backends learn whether it was
    /// verified. `off`: clients are not asked. Backends receive `X-Client-Cert-Verified` (`yes` or `no`),
    /// `-Fingerprint` (SHA-256), `-Subject` and `-San`; headers with such names from clients are removed.
    client_auth: KeywordValue<ClientAuthMode> = computed("`require` if there is a `client_ca`, else `off`", |it| it.default_client_auth()), "request";
}

section! {
    /// A certificate and its private key.
    RawCertificate at "listeners[].tls.certificates[]";

    /// File with the certificate, followed by the intermediate certificates, in PEM.
    cert: FileName = required, "site.crt";
    /// File with the private key, in PEM (PKCS #8, PKCS #1 or SEC 1).
    key: FileName = required, "site.key";
}

section! {
    /// The PROXY protocol, version 1 or 2, at the start of a connection.
    RawProxyProtocol at "listeners[].proxy_protocol";

    /// Networks from which every connection must start with a PROXY header. A connection without one, or
    /// whose header takes longer than `limits.header_timeout`, is closed. The client address in the header
    /// replaces the peer address for rate limits, `ip_hash`, logs and `trusted_proxies`. From any other
    /// address a PROXY header is a bad request (400).
    from: List<IpNet> = required, "[10.0.0.0/8]";
}

impl RawTls {
    fn default_client_auth(&self) -> KeywordValue<ClientAuthMode> {
        let has_ca = self.client_ca.is_some();
        KeywordValue(if has_ca { ClientAuthMode::Require } else { ClientAuthMode::Off })
    }
}

impl Keyword for TlsVersion {
    const NOUN: &'static str = "a version of TLS";
    const WORDS: &'static [(&'static str, Self)] = &[("1.2", Self::V1_2), ("1.3", Self::V1_3)];
}

/// Whether clients must present a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ClientAuthMode {
    Off,
    Request,
    Require,
}

impl Keyword for ClientAuthMode {
    const NOUN: &'static str = "a way to ask for certificates";
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("request", Self::Request), ("require", Self::Require)];
}
