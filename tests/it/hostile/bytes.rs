//! Every byte in every place of a request's headers: it is served, or the log says what is wrong with it.
//! Nothing that the scanner passes is refused without a word by what is behind it.

use super::origin::Origin;
use crate::support::client::Client;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually};

/// Where the byte stands: `\0` in these.
const PLACES: [(&str, &str); 11] = [
    ("method", "G\0T /at HTTP/1.1\r\nHost: a.test\r\n"),
    ("path", "GET /at\0x HTTP/1.1\r\nHost: a.test\r\n"),
    ("query", "GET /at?q=\0x HTTP/1.1\r\nHost: a.test\r\n"),
    ("first byte of the target", "GET \0at HTTP/1.1\r\nHost: a.test\r\n"),
    ("scheme", "GET htt\0p://a.test/at HTTP/1.1\r\nHost: a.test\r\n"),
    ("authority", "GET http://a\0.test/at HTTP/1.1\r\nHost: a.test\r\n"),
    ("path of an absolute form", "GET http://a.test/at\0?x HTTP/1.1\r\nHost: a.test\r\n"),
    ("version", "GET /at HTTP/1\0.1\r\nHost: a.test\r\n"),
    ("host", "GET /at HTTP/1.1\r\nHost: a\0.test\r\n"),
    ("name", "GET /at HTTP/1.1\r\nHost: a.test\r\nX\0Y: z\r\n"),
    ("value", "GET /at HTTP/1.1\r\nHost: a.test\r\nX: a\0b\r\n"),
];

#[test]
fn every_byte_in_every_place_is_served_or_refused_with_a_reason() {
    let origin = Origin::start();
    let weir = Weir::start(&format!(
        "pools: [{{name: web, health_check: off, backends: [http://{}]}}]\n",
        origin.address()
    ));
    for (place, pattern) in PLACES {
        let (before, after) = pattern.split_once('\0').expect("a place");
        let logged = weir.access_log().len();
        let mut refused = 0;
        for byte in 0..=255_u8 {
            let mut client = Client::connect(weir.address());
            let mut request = before.as_bytes().to_vec();
            request.push(byte);
            request.extend_from_slice(after.as_bytes());
            request.extend_from_slice(b"Connection: close\r\n\r\n");
            let _taken = client.try_send(&request);
            let answer = client.try_read_answer("GET");
            let status = answer.unwrap_or_else(|failure| panic!("{place} {byte:#x}: {failure:?}"));
            refused += usize::from(status.status() != 200);
        }
        assert!(refused > 0, "{place}");
        eventually(TIMEOUT, "every request is logged", || weir.access_log().len() >= logged + 256);
        let lines = weir.access_log().split_off(logged);
        let lines: Vec<_> = lines.into_iter().filter(|line| line["status"] != 200).collect();
        assert_eq!(lines.len(), refused, "{place}");
        for line in lines {
            let has = |key: &str| line[key].as_str().is_some_and(|text| !text.is_empty());
            assert!(has("reason") && has("detail") && has("method"), "{place}: {line}");
            // A byte that ends the line early leaves no target.
            assert!(
                has("path") || matches!(place, "method" | "first byte of the target"),
                "{line}"
            );
        }
    }
}

#[test]
fn what_no_uri_has_goes_on_escaped_as_a_browser_would_do_it() {
    let origin = Origin::start();
    let weir = Weir::start(&format!(
        "pools: [{{name: web, health_check: off, backends: [http://{}]}}]\n",
        origin.address()
    ));
    for (target, expected) in [
        ("/?q={\"a\":1}", "/?q={%22a%22:1}"),
        ("/<a>/`b`\"?<`>", "/%3Ca%3E/%60b%60%22?%3C`%3E"),
        ("http://a.test/\"x\"", "/%22x%22"),
        ("/{id}|x^y\\z", "/{id}|x^y\\z"),
    ] {
        // As one read, and cut at every byte.
        for piece in [target.len() + 100, 1] {
            origin.forget();
            let mut client = Client::connect(weir.address());
            let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            for piece in request.as_bytes().chunks(piece) {
                client.send(piece);
            }
            assert_eq!(client.read_answer().status(), 200, "{target}");
            let bytes = origin.bytes();
            let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            assert_eq!(line, format!("GET {expected} HTTP/1.1"));
            weir.until_logged("the target", |line| {
                let path = line["path"].as_str().unwrap_or_default();
                let query = line["query"].as_str().map_or(String::new(), |it| format!("?{it}"));
                format!("{path}{query}") == expected || path == expected
            });
        }
    }
}
