//! The headers that tell a backend about the client and the proxies before Weir.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, header::HOST};
use ipnet::IpNet;
use pingora::http::RequestHeader;
use pingora_error::{ErrorType, OrErr, Result};

use crate::config::{Forwarding, ForwardingHeader};
use crate::downstream::connection_info::ForwardedValues;
use crate::exchange::{ClientInfo, X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::http::forwarded::{self, field};
use crate::http::scheme::Scheme;
use crate::http::{address, host, trace, underscore};

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The common start of the headers about earlier hops. They are removed unless the peer is trusted.
const FORWARDED_PREFIX: &str = "x-forwarded-";

/// The hop from the client, or from the last proxy, to Weir.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientHop<'a> {
    pub(super) client: ClientInfo,
    pub(super) scheme: Scheme,
    /// The header values of the connection, whose peer is the one in `client`.
    pub(super) written: Option<&'a ForwardedValues>,
}

/// What trusted proxies in front of Weir have sent about earlier hops.
#[derive(Default)]
struct ForwardedChain {
    /// The hops, the first one first, as in `X-Forwarded-For`.
    hops: Vec<String>,
    /// The same as elements of `Forwarded`.
    elements: Vec<String>,
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
    port: Option<HeaderValue>,
}

/// Sets the headers that tell who sent the request, how and for which host. `Host` is still the
/// client's.
pub(super) fn set_forwarding_headers(
    request: &mut RequestHeader,
    client_hop: ClientHop<'_>,
    trusted: &[IpNet],
    fields: Forwarding,
) -> Result<()> {
    let chain = if forwarded::is_trusted(client_hop.client.peer, trusted) {
        parse_forwarding_headers(&request.headers, fields)
    } else {
        ForwardedChain::default()
    };
    strip_forwarding_headers(request);
    let peer = client_hop.client.peer.to_canonical();
    let own = match client_hop.written {
        Some(written) => written.client.clone(),
        None => value(address::text(peer))?,
    };
    let host = request.headers.get(HOST).cloned();
    // Names as text: Pingora would write a `HeaderName` in lower case.
    if fields.send.has_x_forwarded() {
        let mut hops = chain.hops;
        // Most requests come directly from a client.
        let all = if hops.is_empty() {
            own.clone()
        } else {
            hops.push(address::text(peer));
            value(hops.join(", "))?
        };
        request.insert_header("X-Forwarded-For", all)?;
        let scheme = HeaderValue::from_static(client_hop.scheme.as_str());
        request.insert_header("X-Forwarded-Proto", chain.proto.unwrap_or(scheme))?;
        if let Some(host) = chain.host.or_else(|| host.clone()) {
            request.insert_header("X-Forwarded-Host", host)?;
        }
        if let Some(port) =
            chain.port.or_else(|| client_hop.written.map(|written| written.port.clone()))
        {
            request.insert_header("X-Forwarded-Port", port)?;
        }
    }
    if fields.send.has_forwarded() {
        let host = host.as_ref().and_then(|host| host.to_str().ok());
        let mut elements = chain.elements;
        elements.push(field::written(peer, host, client_hop.scheme.as_str()));
        request.insert_header("Forwarded", value(elements.join(", "))?)?;
    }
    let client = client_hop.client.address.to_canonical();
    let real_ip = if client == peer { own } else { value(address::text(client))? };
    request.insert_header("X-Real-IP", real_ip)
}

fn value(text: String) -> Result<HeaderValue> {
    HeaderValue::try_from(text).or_err(ErrorType::InternalError, "a header that Weir sets")
}

fn parse_forwarding_headers(headers: &HeaderMap, fields: Forwarding) -> ForwardedChain {
    let lines = |name: HeaderName| {
        headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or("?"))
    };
    let (x_forwarded, standard) = (fields.send.has_x_forwarded(), fields.send.has_forwarded());
    let mut chain = ForwardedChain::default();
    match fields.accept {
        ForwardingHeader::XForwardedFor => {
            if x_forwarded {
                chain.hops = forwarded::hops(lines(X_FORWARDED_FOR));
            }
            if standard {
                chain.elements = forwarded::hops_as_elements(lines(X_FORWARDED_FOR));
            }
            let last = |name| headers.get_all(name).iter().next_back().cloned();
            chain.proto = last(X_FORWARDED_PROTO);
            chain.host = last(X_FORWARDED_HOST);
            chain.port = last(X_FORWARDED_PORT);
        }
        ForwardingHeader::Forwarded => {
            if x_forwarded {
                chain.hops = forwarded::elements_as_hops(lines(header::FORWARDED));
            }
            if standard {
                chain.elements = forwarded::elements(lines(header::FORWARDED));
            }
            let last = lines(header::FORWARDED)
                .next_back()
                .and_then(|line| field::from_the_right(line).next());
            if let Some(last) = last {
                let scheme = last.proto.as_deref().and_then(Scheme::named);
                chain.proto = scheme.map(|scheme| HeaderValue::from_static(scheme.as_str()));
                let host = last.host.filter(|host| host::canonical(host).is_ok());
                chain.host = host.and_then(|host| HeaderValue::try_from(host).ok());
            }
        }
    }
    chain
}

/// Removes all forwarding headers; trusted values are added again by the caller.
fn strip_forwarding_headers(request: &mut RequestHeader) {
    let received = |name: &&HeaderName| {
        let name = name.as_str();
        // The first letter is enough for most names.
        matches!(name.as_bytes(), [b'f' | b'x', ..])
            // Gateways that turn headers into variables cannot tell `_` from `-`.
            && is_forwarding_header(&underscore::dashed(name))
    };
    // Most requests have none, and an empty list is not allocated.
    let received: Vec<HeaderName> = request.headers.keys().filter(received).cloned().collect();
    for name in &received {
        request.remove_header(name);
    }
}

fn is_forwarding_header(name: &str) -> bool {
    name.starts_with(FORWARDED_PREFIX) || name == "forwarded" || name == X_REAL_IP.as_str()
}

/// Whether this is a header of a trace context (W3C Trace Context).
pub(super) fn is_trace_header(name: &HeaderName) -> bool {
    name.as_str().starts_with("trace")
}

/// Removes an invalid trace context, which no backend could continue.
pub(super) fn strip_invalid_trace_context(request: &mut RequestHeader) {
    let mut parents = request.headers.get_all(TRACEPARENT).iter();
    let (first, second) = (parents.next(), parents.next());
    let good = first.and_then(|line| line.to_str().ok()).is_some_and(trace::is_traceparent);
    if good && second.is_none() {
        return;
    }
    if first.is_some() {
        request.remove_header(&TRACEPARENT);
    }
    request.remove_header(&TRACESTATE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    use crate::config::SentHeaders;
    use crate::proxy::tests::lines;

    const TRUSTED: &str = "10.0.0.0/8";
    /// What a proxy, or a client that pretends to be one, has sent.
    const RECEIVED: [(&str, &str); 7] = [
        ("host", "a.test"),
        ("x-forwarded-for", "192.0.2.1, 198.51.100.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public.test"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "192.0.2.9"),
        ("forwarded", "for=192.0.2.8;host=other.test;proto=https"),
    ];

    fn sent_by(
        peer: &str,
        client: &str,
        received: &[(&'static str, &'static str)],
        fields: Forwarding,
    ) -> Vec<String> {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in received {
            request.append_header(*name, *value).unwrap();
        }
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let client = ClientInfo { peer: ip(peer), address: ip(client) };
        let hop = ClientHop { client, scheme: Scheme::Http, written: None };
        set_forwarding_headers(&mut request, hop, &[TRUSTED.parse().unwrap()], fields).unwrap();
        lines(&request.headers)
    }

    const fn fields(accept: ForwardingHeader, send: SentHeaders) -> Forwarding {
        Forwarding { accept, send }
    }

    const X_FORWARDED: Forwarding =
        fields(ForwardingHeader::XForwardedFor, SentHeaders::XForwardedFor);

    #[test]
    fn an_untrusted_client_says_nothing_about_earlier_hops() {
        let sent = sent_by("203.0.113.7", "203.0.113.7", &RECEIVED, X_FORWARDED);
        assert_eq!(
            sent,
            [
                "host: a.test",
                "x-forwarded-for: 203.0.113.7",
                "x-forwarded-host: a.test",
                "x-forwarded-proto: http",
                "x-real-ip: 203.0.113.7",
            ]
        );
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_appended() {
        let sent = sent_by("10.0.0.9", "198.51.100.2", &RECEIVED, X_FORWARDED);
        assert_eq!(
            sent,
            [
                "host: a.test",
                "x-forwarded-for: 192.0.2.1, 198.51.100.2, 10.0.0.9",
                "x-forwarded-host: public.test",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
                "x-real-ip: 198.51.100.2",
            ]
        );
    }

    #[test]
    fn the_header_that_is_not_accepted_is_ignored() {
        let both = fields(ForwardingHeader::XForwardedFor, SentHeaders::Forwarded);
        let sent = sent_by("10.0.0.9", "198.51.100.2", &RECEIVED, both);
        assert_eq!(
            sent,
            [
                "forwarded: for=192.0.2.1, for=198.51.100.2, for=10.0.0.9;host=a.test;proto=http",
                "host: a.test",
                "x-real-ip: 198.51.100.2",
            ]
        );
        let both = fields(ForwardingHeader::Forwarded, SentHeaders::Both);
        let sent = sent_by("10.0.0.9", "192.0.2.8", &RECEIVED, both);
        assert_eq!(
            sent,
            [
                "forwarded: for=192.0.2.8;host=other.test;proto=https, \
                 for=10.0.0.9;host=a.test;proto=http",
                "host: a.test",
                "x-forwarded-for: 192.0.2.8, 10.0.0.9",
                "x-forwarded-host: other.test",
                "x-forwarded-proto: https",
                "x-real-ip: 192.0.2.8",
            ]
        );
    }

    #[test]
    fn the_last_element_of_forwarded_names_scheme_and_host_if_they_are_valid() {
        let accept = fields(ForwardingHeader::Forwarded, SentHeaders::XForwardedFor);
        let sent = |line: &'static str| {
            let received = [("host", "a.test"), ("forwarded", line)];
            sent_by("10.0.0.9", "10.0.0.9", &received, accept)[2..4].to_vec()
        };
        let of_weir = ["x-forwarded-host: a.test", "x-forwarded-proto: http"];
        assert_eq!(sent("for=192.0.2.8;proto=gopher;host=\"a b\""), of_weir);
        assert_eq!(sent("for=192.0.2.8;proto=https;host=b.test, for=192.0.2.9"), of_weir);
        assert_eq!(
            sent("for=192.0.2.9, for=192.0.2.8;proto=HTTPS;host=b.test"),
            ["x-forwarded-host: b.test", "x-forwarded-proto: https"]
        );
    }

    #[test]
    fn a_client_on_a_dual_stack_socket_has_its_ipv4_address() {
        let address = "::ffff:203.0.113.7";
        let both = fields(ForwardingHeader::XForwardedFor, SentHeaders::Both);
        let sent = sent_by(address, address, &[], both);
        assert_eq!(
            sent,
            [
                "forwarded: for=203.0.113.7;proto=http",
                "x-forwarded-for: 203.0.113.7",
                "x-forwarded-proto: http",
                "x-real-ip: 203.0.113.7",
            ]
        );
    }

    #[test]
    fn a_name_that_a_gateway_takes_for_a_forwarding_header_is_removed() {
        let received = [
            ("x_forwarded_for", "1"),
            ("x-forwarded_proto", "1"),
            ("x-forwarded-anything", "1"),
            ("x_real_ip", "1"),
            ("X-Forwarded", "kept"),
            ("forwarded-for", "kept"),
        ];
        let sent = sent_by("10.0.0.9", "10.0.0.9", &received, X_FORWARDED);
        assert_eq!(
            sent,
            [
                "forwarded-for: kept",
                "x-forwarded-for: 10.0.0.9",
                "x-forwarded-proto: http",
                "x-forwarded: kept",
                "x-real-ip: 10.0.0.9",
            ]
        );
    }

    #[test]
    fn the_port_of_the_connection_counts_unless_a_trusted_proxy_names_one() {
        let sent = |peer: IpAddr| {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            request.append_header("x-forwarded-port", "443").unwrap();
            let written = ForwardedValues {
                client: HeaderValue::from_static("203.0.113.7"),
                port: HeaderValue::from_static("8443"),
            };
            let client = ClientInfo { peer, address: peer };
            let hop = ClientHop { client, scheme: Scheme::Https, written: Some(&written) };
            let trusted = [TRUSTED.parse().unwrap()];
            set_forwarding_headers(&mut request, hop, &trusted, X_FORWARDED).unwrap();
            request.headers.get("x-forwarded-port").unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(sent([203, 0, 113, 7].into()), "8443");
        assert_eq!(sent([10, 0, 0, 9].into()), "443");
    }
}
