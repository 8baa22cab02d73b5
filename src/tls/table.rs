//! Selects the certificate for a client.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files::CertificateAndKey;

/// The certificates of a listener by name. A missing certificate keeps its index, but has no names.
#[derive(Default)]
pub(super) struct CertificateTable {
    by_name: HashMap<String, Vec<usize>>,
    all: Vec<Option<Arc<CertifiedKey>>>,
}

impl CertificateTable {
    pub(super) fn new<'a>(materials: impl Iterator<Item = Option<&'a CertificateAndKey>>) -> Self {
        let mut table = Self::default();
        for (index, material) in materials.enumerate() {
            for name in material.iter().flat_map(|material| &material.names) {
                table.by_name.entry(name.clone()).or_default().push(index);
            }
            table.all.push(material.map(|material| Arc::clone(&material.key)));
        }
        table
    }

    /// The indices for exactly this name, or else for its wildcard.
    fn named(&self, name: &str) -> &[usize] {
        let exact = self.by_name.get(name);
        let wide = || {
            let (_, suffix) = name.split_once('.')?;
            self.by_name.get(&format!("*.{suffix}"))
        };
        exact.or_else(wide).map_or(&[], Vec::as_slice)
    }

    /// The index of the certificate for a host: 0, if no certificate has its name.
    pub(super) fn place(&self, host: &str) -> usize {
        self.named(host).first().copied().unwrap_or(0)
    }

    /// The first certificate for `name` that `fits`, or else the first of all that fits. If the
    /// first of all is missing, no other replaces it: a client must not get a certificate that
    /// belongs to another host.
    fn pick(
        &self,
        name: Option<&str>,
        fits: impl Fn(&CertifiedKey) -> bool,
    ) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase).unwrap_or_default();
        let named = self.named(&name).iter().filter_map(|index| self.all.get(*index)?.as_ref());
        let first = self.all.first()?.as_ref();
        let others = first.into_iter().flat_map(|_| self.all.iter().flatten());
        named.chain(others).find(|key| fits(key)).or(first).cloned()
    }
}

/// The certificate table of a listener, which can be replaced at any time.
pub(super) struct CertificateResolver(pub(super) Arc<ArcSwap<CertificateTable>>);

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("CertificateResolver").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let fits = |key: &CertifiedKey| key.key.choose_scheme(schemes).is_some();
        self.0.load().pick(hello.server_name(), fits)
    }
}
