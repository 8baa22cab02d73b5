//! Addresses: of sockets, of networks, of backends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::super::problem::quote;
use super::super::read::{FromText, ValueError};
use super::super::terms::BackendAddress;

/// The port of `http://` when none is written, and that of `https://`.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// The longest name that DNS can carry, and the longest part between two dots.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;
/// Where the IPv4 address begins in an IPv6 address that it is mapped to.
const MAPPED: u8 = 96;

impl FromText for SocketAddr {
    const EXPECTED: &'static str = "an IP address with a port";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        socket(text, Purpose::Listener)
    }

    fn from_number(typed: &str) -> Option<ValueError> {
        Some(not_an_address(typed, Purpose::Listener))
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// The admin port's address. No help message suggests an address that clients can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct AdminAddress(pub(in super::super) SocketAddr);

impl FromText for AdminAddress {
    const EXPECTED: &'static str = SocketAddr::EXPECTED;

    fn from_text(text: &str) -> Result<Self, ValueError> {
        socket(text, Purpose::Admin).map(Self)
    }

    fn from_number(typed: &str) -> Option<ValueError> {
        Some(not_an_address(typed, Purpose::Admin))
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Listener,
    Admin,
}

impl Purpose {
    /// What to write for a port without an address.
    fn with_port(self, port: &str) -> String {
        match self {
            Self::Listener => format!("for every IPv4 address write `0.0.0.0:{port}`"),
            Self::Admin => format!("write `127.0.0.1:{port}`"),
        }
    }

    const fn usual_port(self) -> u16 {
        match self {
            Self::Listener => 8080,
            Self::Admin => 9090,
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Listener => "write it as `0.0.0.0:8080` or `[::1]:8080`",
            Self::Admin => "write `127.0.0.1:9090`",
        }
    }
}

fn socket(text: &str, purpose: Purpose) -> Result<SocketAddr, ValueError> {
    let address: SocketAddr = text.parse().map_err(|_unclear| not_an_address(text, purpose))?;
    if address.port() == 0 {
        return Err(ValueError::new(format!("{} has port 0", quote(text)))
            .help("a port is a number from 1 to 65535"));
    }
    Ok(address)
}

fn not_an_address(text: &str, purpose: Purpose) -> ValueError {
    let is_address = |piece: &str| {
        let port = piece.strip_prefix(':').unwrap_or(piece);
        piece.parse::<SocketAddr>().is_ok() || port.parse::<u16>().is_ok()
    };
    if has_several(text, is_address) {
        let what = format!("{} is more than one address", quote(text));
        return match purpose {
            Purpose::Listener => ValueError::several(what),
            Purpose::Admin => ValueError::new(what).help("the admin port has only one address"),
        };
    }
    let wrong = ValueError::new(format!("{} is not an IP address with a port", quote(text)));
    let bare = text.strip_prefix(':').unwrap_or(text);
    if bare.parse::<u16>().is_ok_and(|port| port > 0) {
        return wrong.help(purpose.with_port(bare));
    }
    if let Some((ip, port)) = without_brackets(text) {
        return wrong.help(format!("write an IPv6 address in brackets: `[{ip}]:{port}`"));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let address = SocketAddr::new(ip, purpose.usual_port());
        return wrong.help(format!("add a port: `{address}`"));
    }
    if let Some((host, Ok(port))) =
        text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()))
    {
        if host == "*" {
            return wrong.help(format!("for every IPv4 address write `0.0.0.0:{port}`"));
        }
        if host == "localhost" {
            return wrong.help(format!("write `127.0.0.1:{port}`"));
        }
    }
    wrong.help(purpose.example())
}

/// Whether a text has several values between commas or spaces. A list has them if a `-` is indented too far, and a
/// flag if it is taken for a list.
fn has_several(text: &str, is_one: impl Fn(&str) -> bool) -> bool {
    text.split([',', ';', ' ']).filter(|piece| is_one(piece)).count() > 1
}

/// What looks like an IPv6 address with a port. `::1:9090` is an address without a port, too, but
/// it is not what is meant by four decimal digits at the end.
fn without_brackets(text: &str) -> Option<(Ipv6Addr, &str)> {
    let (ip, port) = text.rsplit_once(':')?;
    let port = Some(port).filter(|port| port.len() >= 4 && port.parse::<u16>().is_ok())?;
    Some((ip.parse().ok()?, port))
}

impl FromText for IpNet {
    const EXPECTED: &'static str = "a network";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::from(ip.to_canonical()));
        }
        let network: Self = text.parse().map_err(|_unclear| {
            ValueError::new(format!("{} is not a network", quote(text)))
                .help("write it as `10.0.0.0/8`, `2001:db8::/32` or, for one address, `10.0.0.1`")
        })?;
        let network = without_mapping(text, network)?;
        if network.addr() != network.network() {
            let what = format!("{} has bits set beyond its prefix", quote(text));
            return Err(ValueError::new(what).help(format!(
                "the network is `{}`; one address is `{}`",
                network.trunc(),
                network.addr()
            )));
        }
        Ok(network)
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`: clients of IPv4 are compared as such, however a socket or a proxy
/// writes their addresses.
fn without_mapping(text: &str, network: IpNet) -> Result<IpNet, ValueError> {
    let IpNet::V6(mapped) = network else { return Ok(network) };
    let Some(address) = mapped.addr().to_ipv4_mapped() else { return Ok(network) };
    let v4 = mapped.prefix_len().checked_sub(MAPPED).map(|prefix| Ipv4Net::new(address, prefix));
    match v4 {
        Some(Ok(v4)) => Ok(v4.into()),
        _ => Err(ValueError::new(format!("{} covers more than the IPv4 addresses", quote(text))).help(
            "write IPv4 networks in IPv4 form: `0.0.0.0/0` for all of them, or a network such as \
             `10.0.0.0/8`",
        )),
    }
}

/// A backend's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct BackendUrl {
    pub(in super::super) address: BackendAddress,
    /// Whether it is `https://`.
    pub(in super::super) tls: bool,
}

impl FromText for BackendUrl {
    const EXPECTED: &'static str = "a URL";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        Self::one(text).map_err(|wrong| {
            let is_url = |piece: &str| {
                let is_short =
                    || piece.contains(':') && Self::one(&format!("http://{piece}")).is_ok();
                Self::one(piece).is_ok() || is_short()
            };
            if has_several(text, is_url) {
                return ValueError::several(format!("{} is more than one URL", quote(text)));
            }
            wrong
        })
    }

    fn to_text(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// The address in the URL of one backend and, with TLS, the name in it.
/// # Errors
/// What is wrong with it.
pub fn parse_backend_url(text: &str) -> Result<(BackendAddress, Option<String>), String> {
    let url = BackendUrl::from_text(text).map_err(|wrong| wrong.what)?;
    let server_name = url.tls.then(|| url.server_name()).flatten();
    Ok((url.address, server_name))
}

impl BackendUrl {
    /// The name that a certificate must have, unless another one is configured.
    pub(in super::super) fn server_name(&self) -> Option<String> {
        match &self.address {
            BackendAddress::Socket(address) => Some(address.ip().to_string()),
            BackendAddress::Name(name, _) => Some(name.trim_end_matches('.').to_owned()),
            BackendAddress::Discovered(_) => None,
        }
    }

    fn one(text: &str) -> Result<Self, ValueError> {
        let (tls, host, port) = authority(text)?;
        Ok(Self { address: BackendAddress::of(host, port)?, tls })
    }
}

/// Server name that a certificate is verified for, in lower case; or an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ServerName(pub(in super::super) String);

impl FromText for ServerName {
    const EXPECTED: &'static str = "a host name";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self(ip.to_string()));
        }
        normal_host(text).map(Self).map_err(|wrong| match text.rsplit_once(':') {
            Some((host, _)) => {
                wrong.help(format!("a server name has no port: write {}", quote(host)))
            }
            None => wrong,
        })
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl BackendAddress {
    fn of(host: &str, port: u16) -> Result<Self, ValueError> {
        if let Some(ip) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let ip: Ipv6Addr = ip.parse().map_err(|_unclear| {
                ValueError::new(format!("{} is not an IPv6 address", quote(host)))
                    .help("write it as `http://[2001:db8::1]:3000`")
            })?;
            return Ok(Self::Socket(SocketAddr::new(ip.into(), port)));
        }
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return Ok(Self::Socket(SocketAddr::new(ip.into(), port)));
        }
        Ok(Self::Name(name(host)?, port))
    }
}

/// Whether a backend's URL is one of TLS; its host and port.
fn authority(url: &str) -> Result<(bool, &str, u16), ValueError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        let wrong = ValueError::new(format!("{} is not a URL", quote(url)));
        let meant = format!("http://{url}");
        return Err(match BackendUrl::one(&meant) {
            Ok(_) => wrong.help(format!("write {}", quote(&meant))),
            Err(_) => wrong.help("write it as `http://10.0.0.1:3000`"),
        });
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => {
            return Err(ValueError::new(format!("{} is not a scheme for backends", quote(scheme)))
                .help("write it as `http://10.0.0.1:3000` or `https://10.0.0.1:3443`"));
        }
    };
    if rest.contains('@') {
        return Err(ValueError::new("a backend URL cannot contain a user name and password").help(
            "remove everything before the `@`; clients send their own `Authorization` header",
        ));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
    // `/` alone is the same URL as without.
    if !matches!(tail, "" | "/") {
        return Err(ValueError::new(format!(
            "a backend URL must end after the port, but {} follows",
            quote(tail)
        ))
        .help(format!(
            "write {}; requests keep the path that the client sent",
            quote(&format!("{scheme}://{authority}"))
        )));
    }
    let (host, port) = split_port(authority, if tls { HTTPS_PORT } else { HTTP_PORT })?;
    Ok((tls, host, port))
}

fn split_port(authority: &str, default: u16) -> Result<(&str, u16), ValueError> {
    let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let colon = authority.get(after_host..).and_then(|rest| rest.find(':'));
    let Some(colon) = colon.map(|colon| colon + after_host) else {
        return Ok((authority, default));
    };
    let (host, port) = authority.split_at_checked(colon).unwrap_or((authority, ""));
    let digits = port.strip_prefix(':').unwrap_or(port);
    if digits.contains(':') {
        return Err(ValueError::new(format!("{} is not a host with a port", quote(authority)))
            .help("write an IPv6 address in brackets: `http://[2001:db8::1]:3000`"));
    }
    match digits.parse::<u16>() {
        Ok(port) if port > 0 && !digits.starts_with('+') => Ok((host, port)),
        _ => Err(ValueError::new(format!("{} is not a port", quote(digits)))
            .help("a port is a number from 1 to 65535")),
    }
}

/// A host name in lower case, if DNS could know it.
pub(super) fn name(text: &str) -> Result<String, ValueError> {
    let wrong = || ValueError::new(format!("{} is not a host name", quote(text)));
    let name = text.to_ascii_lowercase();
    let labels = name.strip_suffix('.').unwrap_or(&name);
    if name.is_empty() {
        return Err(
            ValueError::new("the host is missing").help("write it as `http://10.0.0.1:3000`")
        );
    }
    if !name.is_ascii() {
        return Err(wrong().help("write a name with other letters in its `xn--` form"));
    }
    if name.len() > NAME_MAX {
        return Err(wrong().help(format!("a name has at most {NAME_MAX} characters")));
    }
    // What ends in a number is an IPv4 address, or was meant to be one.
    if labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err(ValueError::new(format!("{} is not an IPv4 address", quote(text)))
            .help("four numbers from 0 to 255: `10.0.0.1`"));
    }
    // The underscore is in no standard, but container names have it.
    let fits = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !labels.split('.').all(fits) {
        return Err(wrong().help("letters, digits and `-`, in parts of at most 63 between dots"));
    }
    Ok(name)
}

/// The host of a request as routes compare it: lower case, no trailing dot.
pub(in super::super) fn normal_host(text: &str) -> Result<String, ValueError> {
    if let Some(ip) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let ip: Ipv6Addr = ip.parse().map_err(|_unclear| {
            ValueError::new(format!("{} is not an IPv6 address", quote(text)))
                .help("write it as `\"[2001:db8::1]\"`")
        })?;
        return Ok(format!("[{ip}]"));
    }
    if text.parse::<Ipv4Addr>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
        && !host.contains(':')
    {
        return Err(ValueError::new(format!("{} has a port", quote(text)))
            .help(format!("a route is for every port: write {}", quote(host))));
    }
    name(text).map(|name| name.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(text: &str) -> BackendAddress {
        BackendUrl::from_text(text).unwrap().address
    }

    fn wrong(text: &str) -> String {
        let wrong = BackendUrl::from_text(text).unwrap_err();
        format!("{} / {}", wrong.what, wrong.help.unwrap_or_default())
    }

    #[test]
    fn a_backend_is_an_address_or_a_name_with_a_port() {
        assert_eq!(
            backend("http://10.0.0.1:3000"),
            BackendAddress::Socket("10.0.0.1:3000".parse().unwrap())
        );
        assert_eq!(
            backend("http://[::1]:3000"),
            BackendAddress::Socket("[::1]:3000".parse().unwrap())
        );
        assert_eq!(
            backend("HTTP://Web_1.Internal:1"),
            BackendAddress::Name("web_1.internal".into(), 1)
        );
    }

    #[test]
    fn the_port_of_a_backend_is_80_unless_written() {
        assert_eq!(
            backend("http://10.0.0.1"),
            BackendAddress::Socket("10.0.0.1:80".parse().unwrap())
        );
        assert_eq!(backend("http://[::1]"), BackendAddress::Socket("[::1]:80".parse().unwrap()));
        assert_eq!(backend("http://web"), BackendAddress::Name("web".into(), 80));
    }

    #[test]
    fn https_is_tls_on_443_unless_another_port_is_written() {
        let url = BackendUrl::from_text("https://web").unwrap();
        assert_eq!(url, BackendUrl { address: BackendAddress::Name("web".into(), 443), tls: true });
        assert!(BackendUrl::from_text("HTTPS://10.0.0.1:1").unwrap().tls);
        assert!(!BackendUrl::from_text("http://10.0.0.1:443").unwrap().tls);
    }

    #[test]
    fn a_certificate_may_be_for_a_name_or_an_address() {
        let name = |text| ServerName::from_text(text).unwrap().0;
        assert_eq!(name("Web.Internal."), "web.internal");
        assert_eq!(name("10.0.0.1"), "10.0.0.1");
        assert_eq!(name("[2001:DB8::1]"), "2001:db8::1");
        assert_eq!(name("2001:DB8::1"), "2001:db8::1");
        assert!(ServerName::from_text("a b").is_err());
        assert!(ServerName::from_text("").is_err());
    }

    #[test]
    fn an_ipv6_backend_without_brackets_is_told_of_them() {
        assert!(
            wrong("http://2001:db8::1").contains("brackets"),
            "{}",
            wrong("http://2001:db8::1")
        );
    }

    #[test]
    fn an_address_that_is_almost_one_is_not_taken_for_a_name() {
        assert!(wrong("http://10.0.0.300:80").contains("`10.0.0.300` is not an IPv4 address"));
        assert!(wrong("http://10.0.1:80").contains("`10.0.1` is not an IPv4 address"));
    }

    #[test]
    fn a_port_that_no_socket_has_is_refused() {
        assert!(wrong("http://web:0").starts_with("`0` is not a port"));
        assert!(wrong("http://web:65536").starts_with("`65536` is not a port"));
        assert!(wrong("http://web:+80").starts_with("`+80` is not a port"));
        assert!(wrong("http://web:").starts_with("`` is not a port"));
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        assert_eq!(IpNet::from_text("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(IpNet::from_text("::1").unwrap().to_string(), "::1/128");
    }

    #[test]
    fn a_mapped_network_is_the_one_of_ipv4() {
        let network = |text| IpNet::from_text(text).map(|network| network.to_string());
        for (written, meant) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
            ("::ffff:192.0.2.1/128", "192.0.2.1/32"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:0:0/97", "0.0.0.0/1"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(written).unwrap(), meant, "{written}");
        }
        assert!(network("::ffff:10.0.0.0/95").is_err());
        assert!(network("::ffff:10.0.0.1/104").is_err());
    }

    #[test]
    fn the_host_of_a_route_is_compared_in_lower_case_without_its_last_dot() {
        assert_eq!(normal_host("API.Example.com.").unwrap(), "api.example.com");
        assert_eq!(normal_host("[2001:DB8::0:1]").unwrap(), "[2001:db8::1]");
    }
}
