//! Names of services.

use super::super::problem::quote;
use super::super::read::{FromText, ValueError};
use super::address::name;

/// Name of a service in DNS (RFC 2782), in lower case: `_http._tcp.api.internal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ServiceName(pub(in super::super) String);

impl FromText for ServiceName {
    const EXPECTED: &'static str = "the name of a service";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::new(format!("{} is not the name of a service", quote(text)))
                .help("write it as `_http._tcp.api.internal`")
        };
        if text.contains("://") || text.contains(':') {
            return Err(wrong().help("the records have the ports: write `_http._tcp.api.internal`"));
        }
        let name = name(text).map_err(|_not_a_name| wrong())?;
        let labels: Vec<&str> = name.split('.').collect();
        match labels.as_slice() {
            [service, "_tcp", _, ..] if service.starts_with('_') => Ok(Self(name)),
            _ => Err(wrong()),
        }
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl ServiceName {
    /// Whether its servers use TLS.
    pub(in super::super) fn is_tls(&self) -> bool {
        self.0.starts_with("_https.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_protocol_and_a_domain() {
        let service = |text| ServiceName::from_text(text);
        assert_eq!(service("_HTTP._tcp.Api.internal").unwrap().0, "_http._tcp.api.internal");
        assert!(service("_https._tcp.a").unwrap().is_tls());
        assert!(!service("_http._tcp.a").unwrap().is_tls());
        for wrong in
            ["api.internal", "_http._udp.a", "_http._tcp", "http._tcp.a", "_http._tcp.a:80"]
        {
            assert!(service(wrong).is_err(), "{wrong}");
        }
    }
}
