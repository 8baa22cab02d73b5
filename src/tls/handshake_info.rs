//! The result of a TLS handshake.

/// What the handshake of one connection negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The IANA name of the cipher suite.
    pub cipher: &'static str,
    /// The server name that the client requested (SNI), in lower case.
    pub server_name: Option<String>,
    /// Whether ALPN selected HTTP/2.
    pub http2: bool,
    /// Whether the session was resumed.
    pub resumed: bool,
    /// The client's identity, if it sent a certificate.
    pub client: Option<ClientCertificate>,
}

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whether a CA in `client_ca` has verified it.
    pub verified: bool,
    /// SHA-256 of its DER form, in lower-case hex digits.
    pub fingerprint: String,
    /// Its subject as RFC 4514 text.
    pub subject: String,
    /// Its subject alternative names: `DNS:a.example`, `URI:spiffe://…`, `IP:…`, `email:…`.
    pub names: Vec<String>,
}
