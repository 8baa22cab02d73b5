//! The headers that tell a backend about the client and the proxies before Weir.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, header::HOST};
use ipnet::IpNet;
use pingora::http::RequestHeader;
use pingora_error::{ErrorType, OrErr, Result};

use crate::config::{Forwarding, ForwardingHeader};
use crate::downstream::connection_info::ForwardedValues;
use crate::exchange::{Client, X_FORWARDED_FOR, X_FORWARDED_PROTO};
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
    pub(super) client: Client,
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
