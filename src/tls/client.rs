//! Certificates of clients: who has to show one, and what it says.

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

use super::facts::ClientCertificate;
use super::kept::Contents;
use super::{files, provider};
use crate::config::{ClientAuth, FilePath, Problem};

/// Who vouches for clients, and what is asked of them.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    /// Whether a client without a certificate that is vouched for stays out.
    required: bool,
    /// Changes with those who vouch.
    digest: [u8; 32],
}

impl Clients {
    /// What is in the file of `authority`, which vouches for clients by `auth`.
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

    /// Who a client with this chain of certificates is. A session that is resumed brings the chain
    /// of its beginning, so it is looked at anew each time.
    pub(super) fn identity(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<ClientCertificate> {
        let (leaf, rest) = chain.split_first()?;
        let verified = self.inner.verify_client_cert(leaf, rest, now).is_ok();
        Some(describe(leaf, verified))
    }

    /// Whatever decides who gets in.
    pub(super) fn scope(&self) -> Vec<u8> {
        [&[u8::from(self.required)], &self.digest[..]].concat()
    }

    /// Whether who shows this may come in.
    pub(super) fn admit(&self, client: Option<&ClientCertificate>) -> bool {
        !self.required || client.is_some_and(|client| client.verified)
    }
}

fn unusable(authority: &FilePath, error: &impl std::fmt::Display) -> Problem {
    files::problem(authority, format!("cannot vouch for clients: {error}"))
}

/// Lets everybody in who can prove to have the key of its certificate, whoever vouches for it.
impl ClientCertVerifier for Clients {
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

/// A name as a text from which it can be told again (RFC 4514): what belongs to the grammar is escaped
/// in every value, or a name could feign parts that it does not have.
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
    // The last part comes first (§2.1).
    let parts: Vec<_> = name.iter_rdn().collect();
    let part = |part: &&RelativeDistinguishedName<'_>| {
        part.iter().map(attribute).collect::<Vec<_>>().join("+")
    };
    parts.iter().rev().map(part).collect::<Vec<_>>().join(",")
}

/// A value of a name (RFC 4514 §2.4). A space has a meaning at either end alone.
fn escaped(text: &str) -> String {
    let ended = text.trim_end_matches(' ');
    let inner = ended.trim_start_matches(' ');
    let spaces = |length: usize| "\\20".repeat(length);
    let (before, after) = (ended.len() - inner.len(), text.len() - ended.len());
    format!("{}{}{}", spaces(before), plain(inner, "\"#+,;<>=\\"), spaces(after))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of other kinds of names nobody asks")]
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

/// What a certificate says, so that it ends neither a header field nor, if it is one of a list, its
/// place there: whatever is not printable ASCII, or in `special`, is written as `\` and two hex
/// digits a byte, as in RFC 4514.
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
    fn a_value_cannot_feign_another_part_of_a_name() {
        assert_eq!(escaped("joe, OU=admins+O=x"), "joe\\2C OU\\3Dadmins\\2BO\\3Dx");
        assert_eq!(escaped("  #a\\b "), "\\20\\20\\23a\\5Cb\\20");
        assert_eq!(escaped("  "), "\\20\\20");
        assert_eq!(escaped("Anna Bauer"), "Anna Bauer");
    }

    #[test]
    fn what_a_certificate_says_cannot_end_a_field_or_its_place_in_a_list() {
        assert_eq!(plain("CN=a, O=b", ""), "CN=a, O=b");
        assert_eq!(plain("a\r\nb", ""), "a\\0D\\0Ab");
        assert_eq!(plain("é", ""), "\\C3\\A9");
        assert_eq!(plain("a,DNS:b", ","), "a\\2CDNS:b");
    }
}
