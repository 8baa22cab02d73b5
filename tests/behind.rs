//! The scanner against what is behind it: what the fuzzer has kept, and every byte in every place.

use std::fs;
use std::path::Path;

#[expect(unreachable_pub, clippy::expect_used, reason = "it is a target of the fuzzer")]
#[path = "../fuzz/src/behind.rs"]
mod target;

#[test]
fn what_the_fuzzer_has_kept_of_the_scanner_breaks_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/behind");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        target::behind(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 5, "{count}");
}

#[test]
fn what_the_scanner_passes_is_a_request_for_what_is_behind_it() {
    let requests: [&[u8]; 4] = [
        b"GET /a?b HTTP/1.1\r\nHost: a.test\r\nX-Y: z\r\n\r\n",
        b"GET http://a.test:80/a?b HTTP/1.1\r\nHost: A.test\r\n\r\n",
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: b.test\r\n\r\n",
        b"POST /a HTTP/1.0\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc",
    ];
    for request in requests {
        for at in 0..request.len() {
            for byte in 0..=255_u8 {
                for cut in [255, 7] {
                    let mut data = vec![cut];
                    data.extend_from_slice(request);
                    let mut more = data.clone();
                    data[at + 1] = byte;
                    target::behind(&data);
                    more.insert(at + 1, byte);
                    target::behind(&more);
                }
            }
        }
    }
}
