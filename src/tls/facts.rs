//! What a handshake has found out about a connection.

/// Of one connection over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// By its IANA name.
    pub cipher: &'static str,
    /// The name that the client asked for (SNI), in lower case.
    pub server_name: Option<String>,
    /// Whether ALPN chose HTTP/2.
    pub http2: bool,
    /// Whether the session was resumed.
    pub resumed: bool,
    /// Who the client is, if it showed a certificate.
    pub client: Option<ClientCertificate>,
}

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whether one of `client_ca` vouches for it.
    pub verified: bool,
    /// SHA-256 over its DER form, in lower-case hex digits.
    pub fingerprint: String,
    /// Its subject as an RFC 4514 text.
    pub subject: String,
    /// Its alternative names: `DNS:a.example`, `URI:spiffe://…`, `IP:…`, `email:…`.
    pub names: Vec<String>,
}
