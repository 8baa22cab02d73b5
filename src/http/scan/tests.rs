//! The grammar, case by case; and independence from how the input is split.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { target_bytes: 100, header_bytes: 300, headers: 5 };

/// The number of messages, or the error.
fn scan(bytes: &[u8]) -> Result<u64, FramingError> {
    let mut scanner = Scanner::new(LIMITS);
    scanner.feed(bytes).map(|_| scanner.begun())
}

fn wrong(bytes: &[u8]) -> Option<Violation> {
    scan(bytes).err().map(|broken| broken.violation)
}

/// A request with this line.
fn line(line: &str) -> Option<Violation> {
    wrong(format!("{line}\r\nHost: a\r\n\r\n").as_bytes())
}

/// A request with this after `Host`.
fn fields(fields: &[u8]) -> Option<Violation> {
    wrong(&[b"GET / HTTP/1.1\r\nHost: a\r\n", fields, b"\r\n\r\n"].concat())
}

/// A request with this after its headers.
fn chunks(body: &[u8]) -> Result<u64, FramingError> {
    scan(&[b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", body].concat())
}

fn chunk(body: &[u8]) -> Option<Violation> {
    chunks(body).err().map(|broken| broken.violation)
}

use Violation as V;

#[test]
fn a_request_line_is_method_target_and_version_with_one_space_between() {
    for good in [
        "GET / HTTP/1.1",
        "GET / HTTP/1.0",
        "get /a?b=c HTTP/1.1",
        "M-SEARCH /%zz{}|\"<>\\^` HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "OPTIONS / HTTP/1.1",
        "CONNECT a:443 HTTP/1.1",
        "GET http://a/b HTTP/1.1",
        "GET HTTPS://a HTTP/1.1",
        "AVERYLONGMETHODNAMEOFTHIRTYTWO-- / HTTP/1.1",
    ] {
        assert_eq!(line(good), None, "{good}");
    }
    for (violation, bad) in [
        (V::Method, " GET / HTTP/1.1"),
        (V::Method, "G(T / HTTP/1.1"),
        (V::Method, "GET\t/ HTTP/1.1"),
        (V::Method, "G\0T / HTTP/1.1"),
        (V::Method, "AVERYLONGMETHODNAMEOFTHIRTYTHREE- / HTTP/1.1"),
        (V::Method, "G\u{16}"),
        (V::Target, "GET  / HTTP/1.1"),
        (V::Version, "GET / a HTTP/1.1"),
        (V::Version, "GET /  HTTP/1.1"),
        (V::Version, "GET / HTTP/1.1 "),
        (V::Version, "GET / http/1.1"),
        (V::Version, "GET / HTTP/1"),
        (V::Version, "GET / HTTP/1.10"),
        (V::Version, "GET / HTTP/11.1"),
        (V::OtherVersion, "GET / HTTP/01.1"),
        (V::Version, "GET / HTTP1.1"),
        (V::Version, "GET /"),
        (V::OtherVersion, "GET / HTTP/1.2"),
        (V::OtherVersion, "GET / HTTP/2.0"),
        (V::OtherVersion, "GET / HTTP/0.9"),
        (V::Method, "GET"),
    ] {
        assert_eq!(line(bad), Some(violation), "{bad:?}");
    }
}

#[test]
fn a_target_has_a_form_that_fits_the_method() {
    for bad in [
        "GET a HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS *a HTTP/1.1",
        "OPTIONSX * HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://?a HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET javascript:alert(1) HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "CONNECT * HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /\u{1} HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\t HTTP/1.1",
        "PROXY * HTTP/1.1",
        "PROXY a HTTP/1.1",
        "PRI a HTTP/2.0",
    ] {
        assert_eq!(line(bad), Some(V::Target), "{bad:?}");
    }
}

#[test]
fn other_protocols_are_recognized() {
    for (violation, bytes) in [
        (V::Tls, &b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..]),
        (V::ProxyHeader, b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 443\r\n"),
        (V::ProxyHeader, b"PROXY TCP6 ::1 ::1 4711 443\r\n"),
        (V::ProxyHeader, b"PROXY UNKNOWN\r\n"),
        (V::ProxyHeader, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"),
        (V::Http2Preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (V::EmptyLines, b"\r\n\r\n\0\r\nQUI"),
    ] {
        assert_eq!(wrong(bytes), Some(violation), "{bytes:?}");
    }
    for good in ["PROXY / HTTP/1.1", "PRI / HTTP/1.1", "PROXYTCP4 / HTTP/1.1"] {
        assert_eq!(line(good), None, "{good}");
    }
}

#[test]
fn a_line_ends_in_cr_and_lf() {
    assert_eq!(wrong(b"GET / HTTP/1.1\nHost: a\n\n"), Some(V::BareNewline));
    assert_eq!(wrong(b"GET / HTTP/1.1\rHost: a\r\r"), Some(V::BareReturn));
    assert_eq!(fields(b"A: b\nC: d"), Some(V::BareNewline));
    assert_eq!(fields(b"A: b\rC: d"), Some(V::BareReturn));
    assert_eq!(wrong(b"GET / HTTP/1.1\r\nHost: a\r\n\n"), Some(V::BareNewline));
    assert_eq!(wrong(b"GET / HTTP/1.1\r\nHost: a\r\n\rX"), Some(V::BareReturn));
}

#[test]
fn a_header_is_a_token_a_colon_and_a_value_without_controls() {
    for good in [&b"A:"[..], b"A: ", b"A:b\tc ", b"A_b: \xff\x80", b"!#$%&'*+-.^_`|~09: :;,"] {
        assert_eq!(fields(good), None, "{good:?}");
    }
    for (violation, bad) in [
        (V::FieldName, &b": b"[..]),
        (V::FieldName, b"A : b"),
        (V::FieldName, b"A\t: b"),
        (V::FieldName, b"A b: c"),
        (V::FieldName, b"A"),
        (V::FieldName, b"A\0: b"),
        (V::FieldName, b"\xc3\xa9: b"),
        (V::FieldName, b"(a): b"),
        (V::FieldName, b"\"a\": b"),
        (V::Fold, b" A: b"),
        (V::Fold, b"A: b\r\n c"),
        (V::Fold, b"A: b\r\n\tc"),
        (V::FieldValue, b"A: b\0c"),
        (V::FieldValue, b"A: \x01"),
        (V::FieldValue, b"A: \x7f"),
        (V::FieldValue, b"A: b\x0bc"),
        (V::FieldValue, b"A: \x1b[31m"),
    ] {
        assert_eq!(fields(bad), Some(violation), "{bad:?}");
    }
}

#[test]
fn http_1_1_requires_exactly_one_host() {
    assert_eq!(wrong(b"GET / HTTP/1.1\r\n\r\n"), Some(V::NoHost));
    assert_eq!(wrong(b"GET http://a/ HTTP/1.1\r\n\r\n"), Some(V::NoHost));
    assert_eq!(wrong(b"GET / HTTP/1.0\r\n\r\n"), None);
    assert_eq!(fields(b"hOsT: b"), Some(V::Hosts));
    assert_eq!(wrong(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), Some(V::Hosts));
}

#[test]
fn a_length_is_one_decimal_number() {
    for good in ["0", "00", " 5\t", "9223372036854775807"] {
        assert_eq!(fields(format!("content-LENGTH:{good}").as_bytes()), None, "{good}");
    }
    for bad in ["", " ", "+5", "-5", "5, 5", "5,5", "5 5", "0x5", "5a", "a", "5;", "1e3", "5.0"] {
        let field = format!("Content-Length: {bad}");
        assert_eq!(fields(field.as_bytes()), Some(V::Length), "{bad}");
    }
    for bad in ["9223372036854775808", "18446744073709551616", "99999999999999999999999"] {
        let field = format!("Content-Length: {bad}");
        assert_eq!(fields(field.as_bytes()), Some(V::Length), "{bad}");
    }
    assert_eq!(fields(b"Content-Length: 5\r\nContent-Length: 5"), Some(V::Lengths));
    assert_eq!(fields(b"Content-Length: 0\r\nContent-Length: 0"), Some(V::Lengths));
}

#[test]
fn the_only_transfer_coding_is_chunked_alone_and_once() {
    assert_eq!(fields(b"Transfer-Encoding: \tChUnKeD "), None);
    for bad in [
        "",
        "xchunked",
        "chunkedx",
        "chunke",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "identity",
        "gzip, chunked",
        "chunked, identity",
        "\u{b}chunked",
        "chunked;a=b",
        "chunked chunked",
        "\"chunked\"",
    ] {
        let field = format!("Transfer-Encoding: {bad}");
        let wrong = fields(field.as_bytes());
        assert!(matches!(wrong, Some(V::Coding | V::FieldValue)), "{bad:?}: {wrong:?}");
    }
    let twice = b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
    assert_eq!(fields(twice), Some(V::Coding));
    assert_eq!(fields(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x"), Some(V::Coding));
    assert_eq!(fields(b"Transfer_Encoding: x"), None, "it is another name");
    assert_eq!(wrong(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Some(V::OldCoding));
}

#[test]
fn a_length_with_chunks_is_rejected_in_either_order() {
    let one = b"Content-Length: 5\r\nTransfer-Encoding: chunked";
    let other = b"Transfer-Encoding: chunked\r\nContent-Length: 0";
    assert_eq!((fields(one), fields(other)), (Some(V::LengthAndCoding), Some(V::LengthAndCoding)));
}

#[test]
fn each_limit_has_its_own_status() {
    let long = "a".repeat(100);
    assert_eq!(line(&format!("GET /{} HTTP/1.1", &long[1..])), None);
    assert_eq!(line(&format!("GET /{long} HTTP/1.1")), Some(V::TargetBytes));
    assert_eq!(fields(b"A: b\r\nA: b\r\nA: b\r\nA: b"), None);
    assert_eq!(fields(b"A: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b"), Some(V::Fields));
    // `Host: a` has 9 bytes with its line end, the empty line 2, `A: ` and its line end 5.
    let value = |bytes| format!("A: {}", "b".repeat(bytes));
    assert_eq!(fields(value(300 - 9 - 2 - 5).as_bytes()), None);
    assert_eq!(fields(value(300 - 9 - 2 - 4).as_bytes()), Some(V::FieldBytes));
    let statuses = [V::TargetBytes, V::Fields, V::FieldBytes, V::OtherVersion, V::Fold];
    assert_eq!(statuses.map(Violation::status), [414, 431, 431, 505, 400]);
}

#[test]
fn a_body_in_chunks_ends_with_an_empty_chunk_and_trailers() {
    for good in [
        &b"0\r\n\r\n"[..],
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5\r\n\r\n\r\n\0\r\n00\r\n\r\n",
        b"A\r\n0123456789\r\n000\r\nX-Sum: 1\r\nY: \r\n\r\n",
        b"5;a;b=c;d=\"e\\\";\xff \";f = g \r\nhello\r\n0;x\r\n\r\n",
        b"5 ;a\r\nhello\r\n0\r\n\r\n",
    ] {
        let next = [good, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(chunks(&next), Ok(2), "{}", good.escape_ascii());
    }
}

#[test]
fn an_ambiguous_chunk_is_rejected() {
    for (violation, bad) in [
        (V::ChunkSize, &b"\r\n"[..]),
        (V::ChunkSize, b"\n"),
        (V::ChunkSize, b";a\r\n"),
        (V::ChunkSize, b" 5\r\n"),
        (V::ChunkSize, b"+5\r\n"),
        (V::ChunkSize, b"-5\r\n"),
        (V::ChunkSize, b"0x5\r\n"),
        (V::ChunkSize, b"5g\r\n"),
        (V::ChunkSize, b"5_0\r\n"),
        (V::ChunkSize, b"5,5\r\n"),
        (V::ChunkSize, b"8000000000000000\r\n"),
        (V::ChunkSize, b"10000000000000005\r\n"),
        (V::ChunkSize, b"0000000000000000005\r\n"),
        (V::BareNewline, b"5\nhello\r\n"),
        (V::BareReturn, b"5\rXhello\r\n"),
        (V::ChunkExtension, b"5 \r\nhello\r\n"),
        (V::ChunkExtension, b"5 5\r\nhello\r\n"),
        (V::ChunkExtension, b"5;\r\nhello\r\n"),
        (V::ChunkExtension, b"5;a=\r\nhello\r\n"),
        (V::ChunkExtension, b"5;a=\"b\r\nhello\r\n"),
        (V::ChunkExtension, b"5;a=\"b\\\r\nhello\r\n"),
        (V::ChunkExtension, b"5;a=b\"c\"\r\nhello\r\n"),
        (V::ChunkExtension, b"5;\0\r\nhello\r\n"),
        (V::ChunkExtension, b"5;a/b\r\nhello\r\n"),
        (V::BareNewline, b"5;a\nhello\r\n"),
        (V::BareNewline, b"5;a=\"\n\"\r\nhello\r\n"),
        (V::BareReturn, b"5;a\rb\r\nhello\r\n"),
        (V::ChunkEnd, b"5\r\nhelloX"),
        (V::ChunkEnd, b"5\r\nhello\n"),
        (V::ChunkEnd, b"5\r\nhello\rX"),
        (V::BareNewline, b"0\n\r\n"),
        (V::BareNewline, b"0\r\n\n"),
        (V::BareReturn, b"0\r\n\rX"),
        (V::FieldName, b"0\r\nX\r\n\r\n"),
        (V::FieldName, b"0\r\nX : y\r\n\r\n"),
        (V::Fold, b"0\r\n X: y\r\n\r\n"),
        (V::FieldValue, b"0\r\nX: \0\r\n\r\n"),
        (V::BareNewline, b"0\r\nX: y\n\r\n"),
        (V::Trailer, b"0\r\nContent-Length: 5\r\n\r\n"),
        (V::Trailer, b"0\r\ntransfer-encoding: chunked\r\n\r\n"),
        (V::Trailer, b"0\r\nHost: b\r\n\r\n"),
        (V::Fields, b"0\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n"),
    ] {
        let broken = chunks(bad).unwrap_err();
        assert_eq!(broken.violation, violation, "{}", bad.escape_ascii());
        assert_eq!((broken.part, broken.message, broken.valid_prefix), (MessagePart::Head, 1, 0));
    }
}

#[test]
fn many_small_extensions_cannot_exceed_the_limit() {
    let one = [&b"1;"[..], &b"a".repeat(2000), b"\r\nx\r\n"].concat();
    assert_eq!(chunk(&one.repeat(2)), None);
    assert_eq!(chunk(&one.repeat(3)), Some(V::ChunkExtensionBytes));
}

#[test]
fn one_empty_line_before_a_request_is_accepted_and_starts_no_message() {
    assert_eq!(scan(b"\r\n"), Ok(0));
    assert_eq!(scan(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r"), Ok(1));
    assert_eq!(wrong(b"\r\n\r\nGET"), Some(V::EmptyLines));
    assert_eq!(wrong(b"\nGET"), Some(V::BareNewline));
    assert_eq!(wrong(b"\rGET"), Some(V::BareReturn));
}

#[test]
fn bodies_are_skipped_to_the_byte() {
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\0\0\0";
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(scan(&[&post[..], get, post, get].concat()), Ok(4));
    let mut scanner = Scanner::new(LIMITS);
    scanner.feed(&post[..post.len() - 1]).unwrap();
    assert!(!scanner.is_between());
    scanner.feed(b"\0").unwrap();
    assert!(scanner.is_between());
}

#[test]
fn bytes_before_invalid_headers_may_be_passed_on_and_the_headers_not() {
    let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let broken = scan(&[&good[..], b"\r\nGET / HTTP/1.1\r\n :"].concat()).unwrap_err();
    assert_eq!((broken.message, broken.part), (2, MessagePart::Head));
    assert_eq!((broken.valid_prefix, broken.line_at), (good.len() + 2, Some(good.len() + 2)));
    let broken = scan(&[&good[..], b"\r\n\r\n"].concat()).unwrap_err();
    assert_eq!(
        (broken.valid_prefix, broken.line_at),
        (good.len() + 2, None),
        "not the line before it"
    );
    let mut scanner = Scanner::new(LIMITS);
    assert_eq!(scanner.feed(b"\r\nGE"), Ok(Some(2)), "it begins here and is incomplete");
    let broken = scanner.feed(b"T\0").unwrap_err();
    assert_eq!((broken.valid_prefix, broken.line_at), (0, None));
}

#[test]
fn bytes_before_an_error_in_a_body_may_be_passed_on() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut scanner = Scanner::new(LIMITS);
    scanner.feed(head).unwrap();
    let broken = scanner.feed(b"1\r\nx\r\nz").unwrap_err();
    assert_eq!((broken.message, broken.part, broken.valid_prefix), (1, MessagePart::Body, 6));
}

#[test]
fn an_error_in_a_body_in_the_same_read_as_its_headers_rejects_the_headers_too() {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz";
    let broken = scan(&[&get[..], post].concat()).unwrap_err();
    assert_eq!(
        (broken.message, broken.part, broken.valid_prefix),
        (2, MessagePart::Head, get.len())
    );
}

/// The scanner's result for this input split at `cuts`: how many bytes may be passed on, and the
/// error.
fn in_pieces(bytes: &[u8], cuts: &[usize]) -> (u64, Option<(Violation, u64)>) {
    let mut scanner = Scanner::new(LIMITS);
    let mut from = 0;
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    for cut in cuts {
        if let Err(broken) = scanner.feed(&bytes[from..cut]) {
            assert!(broken.valid_prefix <= cut - from, "{broken:?}");
            let why = (broken.violation, broken.message);
            return (scanner.begun(), Some(why));
        }
        from = cut;
    }
    (scanner.begun(), None)
}

/// A valid message, and its bytes.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let method = "[A-Z!#$%&'*+.^_`|~0-9a-z-]{1,32}";
    let target = "(/|https?://[a-z0-9.-]{1,8})[!-\"$-~]{0,40}";
    let field = "X[A-Za-z0-9_.~-]{0,20}:[ \t]{0,2}[ -~\t\u{80}-\u{ff}]{0,20}";
    let body = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|body| {
            [format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes(), body].concat()
        }),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4).prop_map(|body| {
            let mut bytes = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body {
                bytes.extend(format!("{:x};a=\"b\"\r\n", chunk.len()).into_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            [&bytes, &b"0\r\nX-After: 1\r\n\r\n"[..]].concat()
        }),
    ];
    (method, target, prop::collection::vec(field, 0..3), body).prop_map(
        |(method, target, fields, body)| {
            let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
            for field in fields {
                bytes.extend(field.into_bytes());
                bytes.extend(b"\r\n");
            }
            bytes.extend(if body.is_empty() { b"\r\n".to_vec() } else { body });
            bytes
        },
    )
}

proptest! {
    #[test]
    fn valid_messages_are_accepted_one_after_another(
        messages in prop::collection::vec(message(), 1..5),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let count = u64::try_from(messages.len()).unwrap();
        prop_assert_eq!(in_pieces(&messages.concat(), &cuts), (count, None));
    }

    #[test]
    fn a_corrupted_message_gets_the_same_verdict_however_it_is_split(
        message in message(),
        at in any::<usize>(),
        byte in prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':')],
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let mut bytes = message;
        let at = at % bytes.len();
        bytes[at] = byte;
        let whole = in_pieces(&bytes, &[]);
        prop_assert_eq!(&in_pieces(&bytes, &cuts), &whole);
        let each: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&in_pieces(&bytes, &each), &whole);
    }

    #[test]
    fn no_bytes_make_the_scanner_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cuts in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        prop_assert_eq!(in_pieces(&bytes, &cuts), in_pieces(&bytes, &[]));
    }
}
