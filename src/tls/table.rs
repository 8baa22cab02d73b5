//! Which certificate a client gets.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files::Material;

/// The certificates of a listener by their names. One that is missing keeps its place, and its names
/// are not known.
#[derive(Default)]
pub(super) struct Table {
    by_name: HashMap<String, Vec<usize>>,
    all: Vec<Option<Arc<CertifiedKey>>>,
}

impl Table {
    pub(super) fn new<'a>(materials: impl Iterator<Item = Option<&'a Material>>) -> Self {
        let mut table = Self::default();
        for (index, material) in materials.enumerate() {
            for name in material.iter().flat_map(|material| &material.names) {
                table.by_name.entry(name.clone()).or_default().push(index);
            }
            table.all.push(material.map(|material| Arc::clone(&material.key)));
        }
        table
    }

    /// Those with that very name, else those with a `*` for its first label.
    fn named(&self, name: &str) -> &[usize] {
        let exact = self.by_name.get(name);
        let wide = || {
            let (_, suffix) = name.split_once('.')?;
            self.by_name.get(&format!("*.{suffix}"))
        };
        exact.or_else(wide).map_or(&[], Vec::as_slice)
    }

    /// The certificate of a host, by its place in the list: the first, if no other has its name.
    pub(super) fn place(&self, host: &str) -> usize {
        self.named(host).first().copied().unwrap_or(0)
    }

    /// The first that is for `name` and that `fits`, else the first of all that fits. Where the first
    /// of all is missing, no other stands in for it: a client that asked for it must not be shown
    /// what belongs to somebody else.
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

/// The table of a listener, which may be replaced at any time.
pub(super) struct Resolver(pub(super) Arc<ArcSwap<Table>>);

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Resolver").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let fits = |key: &CertifiedKey| key.key.choose_scheme(schemes).is_some();
        self.0.load().pick(hello.server_name(), fits)
    }
}
