//! What each target does with its bytes, and what must hold whatever they are.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, Method};
use ipnet::IpNet;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use weir::config::pem::Block;
use weir::config::{self, Config, Overrides, Route, precedence};
use weir::http::proxy_protocol::{self, Addresses};
use weir::http::request_reader::{AdminRequest, HEAD_MAX, RequestReader};
use weir::http::scan::{Limits, MessagePart, Scanner};
use weir::http::scheme::Scheme;
use weir::http::{forwarded, host, path};
use weir::policy::frame_budget::FrameBudget;
use weir::runtime::endpoint::Lookup;
use weir::runtime::routes::{RouteQuery, Routes};
use weir::runtime::snapshot::Snapshot;
use weir::time::Timestamp;

use crate::dice::Dice;
use crate::world::World;

/// A target: its name, which is its folder in `corpus/`, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 11] = [
    ("config", config),
    ("host", host),
    ("forwarded", forwarded),
    ("path", path),
    ("routes", routes),
    ("proxy_header", proxy_header),
    ("request", request),
    ("admin_request", admin_request),
    ("frames", frames),
    ("pem", pem),
    ("exchange", exchange),
];

/// A configuration file, as far as a snapshot of it.
pub fn config(data: &[u8]) {
    let none = Overrides::default();
    let lines = data.split(|byte| *byte == b'\n').count();
    assert_eq!(config::version(Some(data), &none), config::version(Some(data), &none));
    match config::load(Some(data), &none) {
        Ok(config) => {
            let look_up = |_: &str, port| Lookup::Found(SocketAddr::from(([192, 0, 2, 1], port)));
            let snapshot = Snapshot::new(&config, "fuzzed", 0, look_up);
            assert_eq!(snapshot.pools.len(), config.pools.len(), "what loads can be served");
            assert!(config::diff(&config, &config).is_empty(), "nothing changed");
        }
        Err(problems) => {
            assert!(problems.iter().next().is_some(), "refused without a reason");
            for problem in problems.iter() {
                let place = problem.at.map_or(1, |at| at.line);
                // Some editors, and YAML, end a line at a CR too.
                let breaks = data.iter().filter(|byte| **byte == b'\r').count();
                assert!(place >= 1 && place <= lines + breaks + 1, "{problem} is outside");
                assert!(!problem.what.is_empty() && !problem.to_string().contains('\n'));
            }
        }
    }
}

/// `Host`: one spelling, or a refusal.
pub fn host(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(once) = host::canonical(text) else { return };
    assert_eq!(host::canonical(&once).as_deref(), Ok(&*once), "its spelling has another");
    assert!(once.len() <= text.len().max(41), "{once} is longer than {text}");
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
    assert!(!once.is_empty() && once.bytes().all(is_plain), "{once:?}");
    assert!(!once.contains([',', '@', '/', '\\', '%', '?', '#', '"']), "{once:?}");
}

/// A connection to the admin port: the same requests, however the bytes are cut, and the same as
/// another parser finds.
pub fn admin_request(data: &[u8]) {
    let (whole, piecemeal) = (admin_requests(data, data.len()), admin_requests(data, 1));
    let (one, other) = (admin_requests(data, 7), &whole);
    // Of more bytes than are kept, how many are seen depends on how they come.
    if data.len() <= HEAD_MAX {
        assert!(whole == piecemeal && one == *other, "it depends on the cut");
    }
    let mut rest = data;
    for request in &piecemeal.0 {
        assert!(!request.method.is_empty() && !request.path.contains(['?', ' ', '\r', '\n']));
        let mut fields = [httparse::EMPTY_HEADER; 101];
        let mut parsed = httparse::Request::new(&mut fields);
        let length = match parsed.parse(rest) {
            Ok(httparse::Status::Complete(length)) => length,
            other => panic!("another parser finds no request: {other:?}"),
        };
        assert_eq!(parsed.method, Some(&*request.method));
        assert_eq!(parsed.version, Some(u8::from(!request.is_http_1_0)));
        assert!(
            parsed
                .path
                .is_some_and(|path| path.contains(request.path.as_str()) || request.path == "/")
        );
        let bodies = ["content-length", "transfer-encoding"];
        let has =
            |name: &str| parsed.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        if request.keeps_connection {
            let empty = |field: &httparse::Header<'_>| field.value.iter().all(|byte| *byte == b'0');
            assert!(bodies.iter().all(|name| has(name).is_none_or(empty)), "a body is no request");
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// The requests that a connection brings in pieces of `size`, and whether it can go on.
fn admin_requests(data: &[u8], size: usize) -> (Vec<AdminRequest>, bool) {
    let mut reader = RequestReader::default();
    let mut requests: Vec<AdminRequest> = Vec::new();
    for piece in data.chunks(size.max(1)) {
        reader.push(piece);
        assert!(reader.room() <= HEAD_MAX);
        loop {
            match reader.next_request() {
                Ok(None) => break,
                Ok(Some(request)) => requests.push(request),
                Err(violation) => {
                    assert!((400..=505).contains(&violation.status()));
                    return (requests, false);
                }
            }
            if requests.last().is_some_and(|request| !request.keeps_connection) {
                return (requests, false);
            }
        }
    }
    (requests, true)
}

/// `X-Forwarded-For` and `Forwarded`: the first line is the peer, then come trusted networks up to an
/// empty line, and the rest is what the peer sent in the one field or in the other.
pub fn forwarded(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let Some(Ok(peer)) = lines.next().map(str::parse::<IpAddr>) else { return };
    let networks = lines.by_ref().take_while(|line| !line.is_empty());
    let trusted: Vec<IpNet> = networks.filter_map(|line| line.parse().ok()).collect();
    let sent: Vec<&str> = lines.collect();
    // At most this many are read, and one fewer is forwarded.
    if sent.iter().map(|line| line.split(',').count()).sum::<usize>() >= forwarded::HOPS_MAX {
        return;
    }
    let sent = || sent.iter().copied();
    let x_client = forwarded::client_ip(peer, sent(), &trusted);
    let client = forwarded::client_by_forwarded(peer, sent(), &trusted);
    for client in [x_client, client] {
        assert_eq!(client, client.to_canonical(), "an address has one spelling");
        if !forwarded::is_trusted(peer, &trusted) {
            assert_eq!(client, peer.to_canonical(), "a stranger said who it is");
        }
    }
    // The next proxy, which trusts us and whom we trust, comes to the same client: by the same
    // field, and by the other one.
    let ours: IpAddr = "203.0.113.1".parse().unwrap();
    let mut theirs = trusted.clone();
    theirs.push(IpNet::from(ours));
    let (mut hops, mut elements) = match forwarded::is_trusted(peer, &trusted) {
        true => (forwarded::hops_as_elements(sent()), forwarded::elements(sent())),
        false => (Vec::new(), Vec::new()),
    };
    let mut crossed = match forwarded::is_trusted(peer, &trusted) {
        true => forwarded::elements_as_hops(sent()),
        false => Vec::new(),
    };
    let element = forwarded::field::written(peer, Some("a.test:80"), "http");
    hops.push(element.clone());
    elements.push(element);
    crossed.push(forwarded::append_for(std::iter::empty(), peer, &[]));
    let x_line = forwarded::append_for(sent(), peer, &trusted);
    let by_x = |line: String| forwarded::client_ip(ours, [line.as_str()].into_iter(), &theirs);
    let by =
        |line: String| forwarded::client_by_forwarded(ours, [line.as_str()].into_iter(), &theirs);
    let x_client = forwarded::client_ip(peer, sent(), &theirs);
    let client = forwarded::client_by_forwarded(peer, sent(), &theirs);
    // A proxy that also trusts the peer finds the same client.
    if forwarded::is_trusted(peer, &trusted) || !forwarded::is_trusted(peer, &theirs) {
        assert_eq!(by_x(x_line.clone()), x_client, "X-Forwarded-For: {x_line}");
        assert_eq!(by(hops.join(", ")), x_client, "as Forwarded: {hops:?}");
        assert_eq!(by(elements.join(", ")), client, "Forwarded: {elements:?}");
        assert_eq!(by_x(crossed.join(", ")), client, "as X-Forwarded-For: {crossed:?}");
    }
}

/// Paths, as routes see them.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if !text.starts_with('/') || text.contains(['?', '#']) {
        return; // never comes here
    }
    let once = path::normalize_for_routing(text);
    assert_eq!(path::normalize_for_routing(&once), once, "normal is normal");
    assert!(once.starts_with('/'), "{once:?}");
    assert!(!once.contains("//"), "{once:?}");
    assert!(!once.split('/').any(|segment| matches!(segment, "." | "..")), "{once:?}");
    assert!(path::has_prefix(&once, "/") && path::has_prefix(&once, &once));
    // A client that may not go below a path cannot get there by another spelling.
    let hidden: String = text.bytes().map(escaped).collect();
    if text.is_ascii() && !text.contains('%') {
        assert_eq!(path::normalize_for_routing(&hidden), once, "{hidden:?}");
    }
}

/// An unreserved character in its other spelling.
fn escaped(byte: u8) -> Cow<'static, str> {
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
        return format!("%{byte:02X}").into();
    }
    char::from(byte).to_string().into()
}

/// Routes against the slowest way to find one: ask each alone, in the order that is shown. A line
/// `host path` is a route (`=` before the path: exactly this one; `~`: a pattern; host `-`: any),
/// one that begins with `>` a request.
pub fn routes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(['"', '\\', '\r', '\t']) || text.len() > 2000 {
        return;
    }
    let (requests, routes): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with('>'));
    let Some(Config { routes, .. }) = loaded(&routes) else { return };
    let table = Routes::new(&routes);
    let order = precedence(&routes);
    let alone = |index: usize| Routes::new(std::slice::from_ref(&routes[index]));
    let alone: Vec<(usize, Routes)> = order.iter().map(|&index| (index, alone(index))).collect();
    for request in requests {
        let Some((host, path)) = request[1..].split_once(' ') else { continue };
        let Ok(host) = host::canonical(host) else { continue };
        if !path.starts_with('/') {
            continue;
        }
        let (path, headers) = (path::normalize_for_routing(path), HeaderMap::new());
        let asked = RouteQuery {
            scheme: Scheme::Http,
            host: &host,
            path: &path,
            query: None,
            method: &Method::GET,
            headers: &headers,
        };
        let expected = alone.iter().find(|(_, one)| one.find(&asked).is_some());
        let expected = expected.map(|(index, _)| *index);
        assert_eq!(table.find(&asked), expected, "{request:?} in {:?}", names(&routes));
    }
}

fn loaded(routes: &[&str]) -> Option<Config> {
    let mut text = "pools: [{name: web, backends: [http://10.0.0.1]}]\nroutes:\n".to_owned();
    for route in routes {
        let (host, path) = route.split_once(' ')?;
        let host = if host == "-" { String::new() } else { format!("host: \"{host}\", ") };
        let (key, path) = match path.split_at_checked(1)? {
            ("=", path) => ("path_exact", path),
            ("~", path) => ("path_regex", path),
            _ => ("path", path),
        };
        text.push_str(&format!("  - {{{host}{key}: \"{path}\", pool: web}}\n"));
    }
    config::load(Some(text.as_bytes()), &Overrides::default()).ok()
}

fn names(routes: &[Route]) -> Vec<String> {
    routes.iter().map(|route| format!("{:?} {:?}", route.host, route.path)).collect()
}

/// A PROXY header.
pub fn proxy_header(data: &[u8]) {
    let parsed = proxy_protocol::parse(data);
    for cut in 0..data.len().min(300) {
        let part = proxy_protocol::parse(&data[..cut]);
        match &parsed {
            Ok(Some(header)) if cut >= header.length => assert_eq!(part, parsed, "at {cut}"),
            Ok(_) => assert_eq!(part, Ok(None), "nothing is certain at {cut}"),
            Err(_) => assert!(!matches!(part, Ok(Some(_))), "a header at {cut} that is none later"),
        }
    }
    let Ok(Some(header)) = parsed else { return };
    assert!(header.length > 0 && header.length <= data.len());
    let ours = proxy_protocol::version_2_header(header.addresses);
    let again = proxy_protocol::parse(&ours).unwrap().unwrap();
    assert_eq!(again.length, ours.len());
    let canonical = |of: SocketAddr| (of.ip().to_canonical(), of.port());
    let ends =
        |of: Option<Addresses>| of.map(|of| (canonical(of.source), canonical(of.destination)));
    assert_eq!(ends(again.addresses), ends(header.addresses));
}

/// A file in PEM: no block is left out, and another reader finds the same in each.
pub fn pem(data: &[u8]) {
    let blocks = match config::pem::blocks(data) {
        Ok(blocks) => blocks,
        Err(error) => return assert!(!error.to_string().contains('\n')),
    };
    let begin = b"-----BEGIN ";
    let begun = data.windows(begin.len()).filter(|window| window == begin).count();
    assert_eq!(begun, blocks.len(), "one is left out");
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(blocks.iter().all(|block| block.line >= 1 && block.line < lines));
    if blocks.iter().any(|block| block.headers) {
        return; // the other one does not know them
    }
    let known = |block: &Block| SectionKind::try_from(block.label.as_bytes()).is_ok();
    let ours = blocks.iter().filter(|block| known(block)).map(|block| block.der.clone());
    let theirs: Result<Vec<_>, _> = <(SectionKind, Vec<u8>)>::pem_slice_iter(data).collect();
    let theirs = theirs.expect("what we read can be read").into_iter().map(|(_, der)| der);
    assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
}

/// Requests on a connection: however they are cut, the verdict is the same; and what is let through
/// is understood in the same way by another parser.
pub fn request(data: &[u8]) {
    let limits = Limits { target_bytes: 64, header_bytes: 512, headers: 8 };
    let mut whole = Scanner::new(limits);
    let verdict = whole.feed(data);
    let mut piecemeal = Scanner::new(limits);
    let broken =
        data.iter().enumerate().find_map(|(at, byte)| Some((at, piecemeal.feed(&[*byte]).err()?)));
    match (verdict, broken) {
        (Ok(_), None) => {
            assert_eq!(whole.begun(), piecemeal.begun());
            assert_eq!(whole.is_between(), piecemeal.is_between());
        }
        (Err(one), Some((at, other))) => {
            assert_eq!((one.violation, one.message), (other.violation, other.message));
            // A body that comes with its head is refused with it.
            assert!(one.part == MessagePart::Head || other.part == MessagePart::Body);
            assert!(one.valid_prefix <= at + other.valid_prefix, "more is passed on");
            if one.part == MessagePart::Body {
                assert_eq!(one.valid_prefix, at + other.valid_prefix, "where the body is broken");
            }
        }
        verdicts => panic!("it depends on the cut: {verdicts:?}"),
    }
    if !verdict.is_err_and(|broken| broken.message == 1 && broken.part == MessagePart::Head) {
        read_alike(data, limits);
    }
}

/// The first head was let through, or is not whole.
fn read_alike(data: &[u8], limits: Limits) {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Request::new(&mut fields);
    let head = match parsed.parse(data) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return,
        Err(error) => {
            let from = data.strip_prefix(b"\r\n").unwrap_or(data);
            let whole = from.windows(4).any(|end| end == b"\r\n\r\n");
            assert!(!whole, "let through, and another parser says {error}");
            return; // it complains earlier
        }
    };
    let field =
        |name: &str| parsed.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let is_between = |end: usize| {
        let mut scanner = Scanner::new(limits);
        scanner.feed(&data[..end]).is_ok() && scanner.is_between()
    };
    if field("transfer-encoding").is_some() {
        assert!(field("content-length").is_none(), "two lengths");
        assert!(!is_between(head), "chunks come");
        return;
    }
    let length = field("content-length").map_or("0", |field| str::from_utf8(field.value).unwrap());
    let end = usize::try_from(length.trim().parse::<u64>().unwrap()).unwrap().saturating_add(head);
    if end <= data.len() {
        assert!(is_between(end), "it does not end at {end}");
    }
    if head < end && end <= data.len() {
        assert!(!is_between(end - 1), "it ends before {end}");
    }
}

/// HTTP/2 frames, repeated at one moment: the verdict does not depend on how they are split into reads,
/// and a plain count of the frames without payload gives the same verdict.
pub fn frames(data: &[u8]) {
    // With the settings that end it.
    let mut preface = [0; 24 + 9];
    preface[24 + 3] = 4;
    let sent = [&preface[..], &data.repeat(20)].concat();
    let mut whole = FrameBudget::default();
    let verdict = whole.received(&sent, Timestamp::ZERO).is_ok();
    let mut piecemeal = FrameBudget::default();
    let pieces = sent.chunks(1 + data.len() % 13);
    let each: Vec<bool> =
        pieces.map(|piece| piecemeal.received(piece, Timestamp::ZERO).is_ok()).collect();
    assert_eq!(verdict, each.into_iter().all(|one| one), "it depends on the cut");

    let (mut rest, mut idle, mut updates) = (&sent[preface.len()..], 0, 0);
    while let [high, middle, low, kind, flags, _, _, _, _, payload @ ..] = rest {
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        match (kind, length) {
            (8, _) => updates += 1,
            (0, 0) if flags & 1 == 1 => {}
            (0 | 1 | 9, 1..) => {}
            _ => idle += 1,
        }
        rest = &payload[length.min(payload.len())..];
    }
    assert_eq!(verdict, idle <= 1000 && updates <= 4000, "{idle} idle, {updates} updates");
}

/// An hour of the simulation in which the bytes decide, and its checker watches.
pub fn exchange(data: &[u8]) {
    let hour = Duration::from_secs(3600);
    World::of(Dice::put(data), hour, 2).live_a_day();
}
