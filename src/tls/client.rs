//! Client certificates: verification, and the identity that they contain.

use std::fmt::Write as _;
use std::sync::Arc;

use ring::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name};

use super::handshake_info::ClientCertificate;
use super::last_good::Contents;
use super::{files, provider};
use crate::config::{ClientAuth, FilePath, Problem};

/// Verifies client certificates against the CA of a listener.
#[derive(Debug, Clone)]
pub(super) struct ClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    /// Whether a client without a verified certificate is rejected.
    required: bool,
    /// A hash of the CA certificates.
    digest: [u8; 32],
}

impl ClientVerifier {
    /// Builds the verifier from the contents of the `authority` file.
    pub(super) fn of(
        auth: &ClientAuth,
        authority: &FilePath,
        contents: &[Contents],
    ) -> Result<Self, Problem> {
        let mut roots = RootCertStore::empty();
        let mut digest = digest::Context::new(&digest::SHA256);
        for certificate in files::certificates(authority, files::part(contents, 0))? {
            digest.update(&certificate);
            roots.add(certificate).map_err(|error| unusable(authority, &error))?;
        }
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| unusable(authority, &error))?;
        let required = matches!(auth, ClientAuth::Require(_));
        let digest = digest.finish().as_ref().try_into().unwrap_or_default();
        Ok(Self { inner, required, digest })
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        if self.required { Arc::clone(&self.inner) } else { Arc::new(self.clone()) }
    }

    /// The identity of a client with this certificate chain. A resumed session contains the chain
    /// of its first handshake, so the chain is verified again each time.
    pub(super) fn identity(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<ClientCertificate> {
        let (leaf, rest) = chain.split_first()?;
        let verified = self.inner.verify_client_cert(leaf, rest, now).is_ok();
        Some(describe(leaf, verified))
    }

    /// Everything that decides which clients are admitted. Sessions are bound to it.
    pub(super) fn scope(&self) -> Vec<u8> {
        [&[u8::from(self.required)], &self.digest[..]].concat()
    }

    /// Whether a client with this certificate is admitted.
    pub(super) fn admit(&self, client: Option<&ClientCertificate>) -> bool {
        !self.required || client.is_some_and(|client| client.verified)
    }
}

fn unusable(authority: &FilePath, error: &impl std::fmt::Display) -> Problem {
    files::problem(
        authority,
        format!("cannot be used to verify clients: {error}"),
        files::AUTHORITY,
    )
}

/// Accepts every client that proves possession of its certificate's key, whatever its issuer. The
/// result of the verification is recorded in the identity.
impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn describe(certificate: &CertificateDer<'_>, verified: bool) -> ClientCertificate {
    let fingerprint = hex(digest::digest(&digest::SHA256, certificate).as_ref());
    let (subject, names) = match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => (distinguished(parsed.subject()), names(&parsed)),
        Err(_unreadable) => (String::new(), Vec::new()),
    };
    ClientCertificate { verified, fingerprint, subject, names }
}

/// A distinguished name as unambiguous text (RFC 4514). Special characters are escaped in every
/// value; otherwise a value could imitate other parts of the name.
fn distinguished(name: &X509Name<'_>) -> String {
    let attribute = |attribute: &AttributeTypeAndValue<'_>| {
        let oid = attribute.attr_type();
        let kind = oid2abbrev(oid, oid_registry());
        let kind = kind.map_or_else(|_unknown| oid.to_id_string(), str::to_owned);
        match attribute.as_str() {
            Ok(text) => format!("{kind}={}", escaped(text)),
            Err(_of_another_type) => format!("{kind}=#{}", hex(attribute.as_slice())),
        }
    };
    // The last part is written first (§2.1).
    let parts: Vec<_> = name.iter_rdn().collect();
    let part = |part: &&RelativeDistinguishedName<'_>| {
        part.iter().map(attribute).collect::<Vec<_>>().join("+")
    };
    parts.iter().rev().map(part).collect::<Vec<_>>().join(",")
}

/// A value of a distinguished name (RFC 4514 §2.4). Spaces are special only at the start and at the
/// end.
fn escaped(text: &str) -> String {
    let ended = text.trim_end_matches(' ');
    let inner = ended.trim_start_matches(' ');
    let spaces = |length: usize| "\\20".repeat(length);
    let (before, after) = (ended.len() - inner.len(), text.len() - ended.len());
    format!("{}{}{}", spaces(before), plain(inner, "\"#+,;<>=\\"), spaces(after))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these kinds of names are used")]
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{}", plain(name, ","))),
        GeneralName::URI(uri) => Some(format!("URI:{}", plain(uri, ","))),
        GeneralName::RFC822Name(mail) => Some(format!("email:{}", plain(mail, ","))),
        GeneralName::IPAddress(bytes) => files::ip(bytes).map(|ip| format!("IP:{ip}")),
        _ => None,
    };
    alternative.value.general_names.iter().filter_map(name).collect()
}

/// Text from a certificate in a form that can end neither a header nor an item of a list. A
/// character that is in `special` or not printable ASCII is written as `\` and two hex digits per
/// byte, as in RFC 4514.
fn plain(text: &str, special: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, ' '..='~') && !special.contains(character) {
            plain.push(character);
            continue;
        }
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            let _infallible = write!(plain, "\\{byte:02X}");
        }
    }
    plain
}

fn hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _infallible = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_imitate_another_part_of_a_name() {
        assert_eq!(escaped("joe, OU=admins+O=x"), "joe\\2C OU\\3Dadmins\\2BO\\3Dx");
        assert_eq!(escaped("  #a\\b "), "\\20\\20\\23a\\5Cb\\20");
        assert_eq!(escaped("  "), "\\20\\20");
        assert_eq!(escaped("Anna Bauer"), "Anna Bauer");
    }

    #[test]
    fn text_of_a_certificate_cannot_end_a_header_or_a_list_item() {
        assert_eq!(plain("CN=a, O=b", ""), "CN=a, O=b");
        assert_eq!(plain("a\r\nb", ""), "a\\0D\\0Ab");
        assert_eq!(plain("é", ""), "\\C3\\A9");
        assert_eq!(plain("a,DNS:b", ","), "a\\2CDNS:b");
    }
}
