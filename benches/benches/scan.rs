//! What it costs to read along with a client. `cargo bench --manifest-path benches/Cargo.toml scan`

use divan::Bencher;
use divan::counter::BytesCount;

use weir::http::scan::{Limits, Scanner};

fn main() {
    divan::main();
}

const LIMITS: Limits = Limits { target_bytes: 8192, header_bytes: 65_536, headers: 100 };

const SMALL: &str = "GET / HTTP/1.1\r\nHost: localhost:8080\r\n\r\n";

/// As a browser sends it.
const BROWSER: &str = "GET /assets/app.3f2a9c.js?v=20261125 HTTP/1.1\r\n\
    Host: www.example.com\r\nConnection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/130.0.0.0 Safari/537.36\r\nsec-ch-ua-platform: \"Linux\"\r\nAccept: */*\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n\
    Referer: https://www.example.com/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=5a1d0c2f9e7b4d3a8c6f1e0b2d4a6c8e; theme=dark; consent=all; \
    _ga=GA1.1.1234567890.1700000000; cart=eyJpdGVtcyI6W119\r\n\r\n";

fn head(bencher: Bencher, head: &str) {
    let mut scanner = Scanner::new(LIMITS);
    bencher
        .counter(BytesCount::of_str(head))
        .bench_local(|| scanner.feed(divan::black_box(head.as_bytes())));
}

#[divan::bench]
fn small_head(bencher: Bencher) {
    head(bencher, SMALL);
}

#[divan::bench]
fn browser_head(bencher: Bencher) {
    head(bencher, BROWSER);
}

/// A body in this many chunks of a KiB, read at once.
#[divan::bench(args = [1, 64])]
fn chunks(bencher: Bencher, count: usize) {
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let text = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(count)
    );
    head(bencher, &text);
}
