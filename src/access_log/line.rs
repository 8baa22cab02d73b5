//! The formats of an access log line.
//!
//! JSON: one object per line, keys in the order of [`json`]; unknown or absent values are omitted.
//! Text, for people, with `-` for unknown values:
//!
//! ```text
//! TIME CLIENT "METHOD SCHEME://HOST PATH?QUERY PROTOCOL" STATUS in=BYTES out=BYTES ms=DURATION
//!   ttfb=DURATION [queue=DURATION] [grpc=STATUS] [tunnel=DURATION] peer=ADDRESS [route=NAME] pool=NAME backend=ADDRESS
//!   attempts=ADDRESS/FAILURE,ADDRESS reason=CODE/DETAIL id="REQUEST ID" agent="USER AGENT"
//! ```
//! on one line. Everything that a client controls is quoted, and inside the quotes everything
//! except printable ASCII is escaped as in JSON (`\"`, `\\`, `\u001b`). So a client can neither
//! start a line of its own nor send control sequences to the reader's terminal.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::time;
use crate::exchange::event::{Summary, Wire};
use crate::exchange::{Attempt, Exchange};
use crate::http::address;
use crate::policy::retry::AttemptFailure;
use crate::runtime::pool::Pool;

/// Enough for most lines.
pub(super) const BYTES_USUAL: usize = 512;
/// The maximum length of a value that a client controls. The queue is bounded in lines, so lines
/// must be bounded for its memory to be.
const VALUE_BYTES_MAX: usize = 2048;
/// Marks a truncated value.
const CUT: &str = "...";

/// Appends a JSON line. `started` is when the request's first byte arrived.
pub(super) fn json(line: &mut String, summary: &Summary<'_>, started: SystemTime) -> fmt::Result {
    let exchange = summary.exchange;
    line.push_str(r#"{"time":""#);
    time::push(line, started)?;
    line.push('"');
    if let Some(client) = exchange.client() {
        json_address(line, r#","client":"#, client.address);
        json_address(line, r#","peer":"#, client.peer);
    }
    if let Some(wire) = summary.wire {
        json_wire(line, wire);
    }
    line.push_str(r#","duration_ms":"#);
    millis(line, summary.ended.since(exchange.started()));
    if let Some(first_byte) = exchange.first_byte() {
        line.push_str(r#","ttfb_ms":"#);
        millis(line, first_byte.since(exchange.started()));
    }
    if !exchange.queued().is_zero() {
        line.push_str(r#","queue_ms":"#);
        millis(line, exchange.queued());
    }
    if let Some(status) = exchange.grpc_status() {
        json_number(line, r#","grpc_status":"#, status.into());
    }
    if let Some(since) = exchange.tunnel_since() {
        line.push_str(r#","tunnel_ms":"#);
        millis(line, summary.ended.since(since));
    }
    if let Some(name) = exchange.route().and_then(|route| route.name.as_ref()) {
        json_word(line, r#","route":"#, name.as_str());
    }
    if let Some(pool) = pool(exchange) {
        json_word(line, r#","pool":"#, pool.name.as_str());
        json_attempts(line, pool, exchange.attempts());
    }
    if let Some(reason) = summary.ending.code() {
        json_word(line, r#","reason":"#, reason);
    }
    if let Some(detail) = exchange.detail() {
        json_word(line, r#","detail":"#, detail);
    }
    line.push_str("}\n");
    Ok(())
}

fn json_wire(line: &mut String, wire: &Wire<'_>) {
    json_field(line, r#","method":"#, wire.method);
    json_word(line, r#","scheme":"#, wire.scheme);
    json_field(line, r#","host":"#, wire.host);
    json_field(line, r#","path":"#, wire.path);
    if let Some(query) = wire.query {
        json_field(line, r#","query":"#, query);
    }
    json_word(line, r#","protocol":"#, wire.protocol);
    json_number(line, r#","status":"#, wire.status.into());
    json_number(line, r#","bytes_in":"#, wire.bytes_in);
    json_number(line, r#","bytes_out":"#, wire.bytes_out);
    json_field(line, r#","request_id":"#, wire.request_id);
    if let Some(user_agent) = wire.user_agent {
        json_field(line, r#","user_agent":"#, user_agent);
    }
}

fn json_attempts(line: &mut String, pool: &Pool, attempts: &[Attempt]) {
    if let Some(last) = attempts.last() {
        json_word(line, r#","backend":"#, label(pool, *last));
    }
    line.push_str(r#","attempts":["#);
    for (index, attempt) in attempts.iter().enumerate() {
        let key = if index == 0 { r#"{"backend":"# } else { r#",{"backend":"# };
        json_word(line, key, label(pool, *attempt));
        if let Some(failure) = attempt.failure {
            line.push_str(r#","failure":""#);
            code(line, failure);
            line.push('"');
        }
        if attempt.budget_exhausted {
            line.push_str(r#","not_retried":"budget_exhausted""#);
        }
        line.push('}');
    }
    line.push(']');
}

/// Appends a key and a quoted value.
fn json_field(line: &mut String, key: &str, value: &str) {
    line.push_str(key);
    quoted(line, value);
}

/// The same for a constant, or for a name that the configuration has validated: no character needs
/// escaping.
fn json_word(line: &mut String, key: &str, word: &str) {
    line.push_str(key);
    line.push('"');
    line.push_str(word);
    line.push('"');
}

fn json_address(line: &mut String, key: &str, value: IpAddr) {
    line.push_str(key);
    line.push('"');
    address::push(line, value);
    line.push('"');
}

fn json_number(line: &mut String, key: &str, value: u64) {
    line.push_str(key);
    number(line, value);
}

/// Appends a text line. `started` is when the request's first byte arrived.
pub(super) fn text(line: &mut String, summary: &Summary<'_>, started: SystemTime) -> fmt::Result {
    let exchange = summary.exchange;
    let client = exchange.client();
    let wire = summary.wire;
    let first_byte = exchange.first_byte().map(|at| at.since(exchange.started()));
    time::push(line, started)?;
    line.push(' ');
    or_dash(line, "", client.map(|client| client.address), address::push);
    match wire {
        Some(wire) => text_request(line, wire),
        None => line.push_str(r#" "-""#),
    }
    or_dash(line, " ", wire.map(|wire| wire.status.into()), number);
    or_dash(line, " in=", wire.map(|wire| wire.bytes_in), number);
    or_dash(line, " out=", wire.map(|wire| wire.bytes_out), number);
    line.push_str(" ms=");
    millis(line, summary.ended.since(exchange.started()));
    or_dash(line, " ttfb=", first_byte, millis);
    if !exchange.queued().is_zero() {
        line.push_str(" queue=");
        millis(line, exchange.queued());
    }
    if let Some(status) = exchange.grpc_status() {
        or_dash(line, " grpc=", Some(status.into()), number);
    }
    if let Some(since) = exchange.tunnel_since() {
        line.push_str(" tunnel=");
        millis(line, summary.ended.since(since));
    }
    or_dash(line, " peer=", client.map(|client| client.peer), address::push);
    if let Some(name) = exchange.route().and_then(|route| route.name.as_ref()) {
        line.push_str(" route=");
        line.push_str(name.as_str());
    }
    text_attempts(line, exchange);
    line.push_str(" reason=");
    line.push_str(summary.ending.code().unwrap_or("-"));
    if let Some(detail) = exchange.detail() {
        line.push('/');
        line.push_str(detail);
    }
    line.push_str(" id=");
    quoted(line, wire.map_or("-", |wire| wire.request_id));
    line.push_str(" agent=");
    quoted(line, wire.and_then(|wire| wire.user_agent).unwrap_or("-"));
    line.push('\n');
    Ok(())
}

fn text_request(line: &mut String, wire: &Wire<'_>) {
    line.push_str(" \"");
    escaped(line, wire.method);
    line.push(' ');
    line.push_str(wire.scheme);
    line.push_str("://");
    escaped(line, wire.host);
    line.push(' ');
    escaped(line, wire.path);
    if let Some(query) = wire.query {
        line.push('?');
        escaped(line, query);
    }
    line.push(' ');
    line.push_str(wire.protocol);
    line.push('"');
}

fn text_attempts(line: &mut String, exchange: &Exchange) {
    let Some(pool) = pool(exchange) else {
        return line.push_str(" pool=- backend=- attempts=-");
    };
    let last = exchange.attempts().last().map(|last| label(pool, *last));
    line.push_str(" pool=");
    line.push_str(pool.name.as_str());
    or_dash(line, " backend=", last, String::push_str);
    line.push_str(" attempts=");
    for (index, attempt) in exchange.attempts().iter().enumerate() {
        line.push_str(if index == 0 { "" } else { "," });
        line.push_str(label(pool, *attempt));
        if let Some(failure) = attempt.failure {
            line.push('/');
            code(line, failure);
        }
        if attempt.budget_exhausted {
            line.push_str("/budget_exhausted");
        }
    }
    if last.is_none() {
        line.push('-');
    }
}

/// Appends a key, and the value or `-`.
fn or_dash<T>(line: &mut String, key: &str, value: Option<T>, push: impl FnOnce(&mut String, T)) {
    line.push_str(key);
    match value {
        Some(value) => push(line, value),
        None => line.push('-'),
    }
}

fn pool(exchange: &Exchange) -> Option<&Pool> {
    exchange.snapshot().pools.get(exchange.pool_id()?)
}

fn label(pool: &Pool, attempt: Attempt) -> &str {
    pool.backend(attempt.backend).map_or("-", |backend| &backend.label)
}

// Numbers are not formatted by `fmt`, which took more than half of a line's time.

fn number(line: &mut String, value: u64) {
    line.push_str(itoa::Buffer::new().format(value));
}

/// Milliseconds with three decimals.
fn millis(line: &mut String, duration: Duration) {
    let whole = duration.as_secs().saturating_mul(1000);
    number(line, whole.saturating_add(duration.subsec_millis().into()));
    line.push('.');
    let micros = duration.subsec_micros();
    for unit in [100, 10, 1] {
        line.push(char::from_digit(micros / unit % 10, 10).unwrap_or('0'));
    }
}

/// The stable code of an attempt's failure.
fn code(line: &mut String, failure: AttemptFailure) {
    line.push_str(failure.code());
    if let AttemptFailure::Status(status) = failure {
        line.push('_');
        number(line, status.into());
    }
}

/// Appends at most [`VALUE_BYTES_MAX`] bytes of `value`, escaped and quoted.
fn quoted(line: &mut String, value: &str) {
    line.push('"');
    escaped(line, value);
    line.push('"');
}

/// The same without the quotes.
fn escaped(line: &mut String, value: &str) {
    let (mut rest, beyond) = value.split_at(value.floor_char_boundary(VALUE_BYTES_MAX));
    // Nearly every value needs no escaping. Checking all of it, without stopping at the first
    // special character, is vectorized.
    let dirty = rest.bytes().fold(false, |dirty, byte| dirty | needs_escape(byte));
    while dirty && let Some(at) = rest.bytes().position(needs_escape) {
        let (clean, tail) = rest.split_at(at);
        line.push_str(clean);
        let mut chars = tail.chars();
        chars.next().into_iter().for_each(|character| escape(line, character));
        rest = chars.as_str();
    }
    line.push_str(rest);
    if !beyond.is_empty() {
        line.push_str(CUT);
    }
}

/// Whether the character with this first byte must be escaped.
fn needs_escape(byte: u8) -> bool {
    !matches!(byte, b' '..=b'~') || byte == b'"' || byte == b'\\'
}

fn escape(line: &mut String, character: char) {
    if let '"' | '\\' = character {
        line.push('\\');
        return line.push(character);
    }
    for unit in character.encode_utf16(&mut [0; 2]) {
        line.push_str("\\u");
        for shift in [12, 8, 4, 0] {
            let digit = u32::from(*unit >> shift & 0xf);
            line.push(char::from_digit(digit, 16).unwrap_or('0'));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::{json, text};
    use crate::exchange::event::{ExchangeEvent, Observer};
    use crate::exchange::refusal::{Outcome, Refusal};
    use crate::exchange::{Replay, Rolls};
    use crate::fixture;
    use crate::time::Timestamp;

    use super::*;

    /// Records the lines of one exchange, in both formats.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<(String, String)>>);

    impl Observer for Recorder {
        fn observe(&self, event: &ExchangeEvent<'_>) {
            let ExchangeEvent::Finished(summary) = event else { return };
            let started = UNIX_EPOCH + Duration::from_millis(1_767_323_045_678);
            let (mut as_json, mut as_text) = (String::new(), String::new());
            json(&mut as_json, summary, started).unwrap();
            text(&mut as_text, summary, started).unwrap();
            self.0.lock().push((as_json, as_text));
        }
    }

    /// The JSON and the text line of an exchange that `live` takes to its end.
    fn lines(live: impl FnOnce(&mut Exchange)) -> (String, String) {
        let recorder = Arc::new(Recorder::default());
        let observer: Arc<dyn Observer> = recorder.clone();
        let mut exchange = fixture::admitted(&fixture::web(), &observer);
        live(&mut exchange);
        drop(exchange);
        recorder.0.lock().pop().unwrap()
    }

    fn completed(wire: &Wire<'_>) -> (String, String) {
        lines(|exchange| exchange.finished(Outcome::Completed, Some(wire), Timestamp::ZERO))
    }

    fn parsed(line: &str) -> Value {
        serde_json::from_str(line).unwrap()
    }

    const REPLAY: Replay =
        Replay { idempotent: true, response_started: false, body_whole: true, half_closed: false };

    fn retried(exchange: &mut Exchange) {
        exchange.pick(Timestamp::ZERO, Rolls::default()).unwrap();
        exchange.attempt_failed(AttemptFailure::Connect, "refused", REPLAY, Timestamp::ZERO);
        exchange.pick(Timestamp::ZERO, Rolls::default()).unwrap();
        exchange.response_head(200, REPLAY, Timestamp::from_nanos(1_234_000));
        let wire = Wire { query: Some("q=1"), user_agent: Some("curl/8"), ..fixture::wire(200) };
        exchange.finished(Outcome::Completed, Some(&wire), Timestamp::from_nanos(12_345_678));
    }

    #[test]
    fn a_json_line_describes_the_whole_exchange() {
        let expected = json!({
            "time": "2026-01-02T03:04:05.678Z",
            "client": "203.0.113.7", "peer": "203.0.113.7",
            "method": "GET", "scheme": "http", "host": "example.com",
            "path": "/a", "query": "q=1", "protocol": "HTTP/1.1",
            "status": 200, "bytes_in": 0, "bytes_out": 12,
            "request_id": "id-1", "user_agent": "curl/8",
            "duration_ms": 12.345, "ttfb_ms": 1.234,
            "pool": "web", "backend": "10.0.0.2:3000",
            "attempts": [
                {"backend": "10.0.0.1:3000", "failure": "connect"},
                {"backend": "10.0.0.2:3000"},
            ],
        });
        assert_eq!(parsed(&lines(retried).0), expected);
    }

    #[test]
    fn a_text_line_describes_the_whole_exchange() {
        assert_eq!(
            lines(retried).1,
            "2026-01-02T03:04:05.678Z 203.0.113.7 \"GET http://example.com /a?q=1 HTTP/1.1\" 200 \
             in=0 out=12 ms=12.345 ttfb=1.234 peer=203.0.113.7 pool=web backend=10.0.0.2:3000 \
             attempts=10.0.0.1:3000/connect,10.0.0.2:3000 reason=- id=\"id-1\" agent=\"curl/8\"\n"
        );
    }

    #[test]
    fn a_refusal_has_its_reason() {
        let (as_json, as_text) = lines(|exchange| {
            let wire = fixture::wire(503);
            let ending = Outcome::Refused(Refusal::NoBackend);
            exchange.finished(ending, Some(&wire), Timestamp::ZERO);
        });
        assert_eq!(parsed(&as_json)["reason"], "no_backend");
        assert_eq!(parsed(&as_json)["attempts"], json!([]));
        assert!(parsed(&as_json).get("backend").is_none());
        assert!(as_text.contains(" backend=- attempts=- reason=no_backend "), "{as_text}");
    }

    #[test]
    fn an_abandoned_exchange_has_only_the_known_values() {
        let (as_json, as_text) = lines(|_| ());
        let expected = json!({
            "time": "2026-01-02T03:04:05.678Z",
            "client": "203.0.113.7", "peer": "203.0.113.7",
            "duration_ms": 0.0, "pool": "web", "attempts": [], "reason": "abandoned",
        });
        assert_eq!(parsed(&as_json), expected);
        assert!(as_text.contains(r#" 203.0.113.7 "-" - in=- out=- "#), "{as_text}");
    }

    #[test]
    fn a_client_cannot_start_a_line_of_its_own() {
        let wire = Wire {
            method: "GET\n",
            host: "a\r\nb",
            path: "/\n{\"status\":200}",
            query: Some("\u{2028}\n"),
            user_agent: Some("x\" reason=- \n2026 forged"),
            request_id: "\n",
            ..fixture::wire(200)
        };
        let (as_json, as_text) = completed(&wire);
        assert_eq!(as_json.matches('\n').count(), 1, "{as_json}");
        assert_eq!(as_text.matches('\n').count(), 1, "{as_text}");
        assert_eq!(parsed(&as_json)["path"], "/\n{\"status\":200}");
        assert!(as_text.contains(r#"agent="x\" reason=- \u000a2026 forged""#), "{as_text}");
    }

    #[test]
    fn nothing_but_printable_ascii_gets_into_a_line() {
        let odd = "\u{1b}[2J\u{7f}\u{9b}31m\u{202e}é😀\0\t\\";
        let wire =
            Wire { method: odd, host: odd, path: odd, user_agent: Some(odd), ..fixture::wire(200) };
        let (as_json, as_text) = completed(&wire);
        for line in [&as_json, &as_text] {
            let body = line.trim_end_matches('\n');
            assert!(body.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
        }
        assert_eq!(parsed(&as_json)["user_agent"], odd);
    }

    #[test]
    fn a_very_long_value_is_truncated() {
        let long = "é".repeat(VALUE_BYTES_MAX);
        let (as_json, _) = completed(&Wire { path: &long, ..fixture::wire(200) });
        let path = parsed(&as_json)["path"].as_str().unwrap().to_owned();
        assert_eq!(path.chars().count(), VALUE_BYTES_MAX / 2 + CUT.len());
        assert!(path.ends_with("é..."), "{path}");
    }

    #[test]
    fn a_retried_status_is_shown_in_the_attempts() {
        let (as_json, as_text) = lines(|exchange| {
            exchange.pick(Timestamp::ZERO, Rolls::default()).unwrap();
            assert!(exchange.response_head(503, REPLAY, Timestamp::ZERO));
        });
        assert_eq!(parsed(&as_json)["attempts"][0]["failure"], "status_503");
        assert!(as_text.contains(" attempts=10.0.0.1:3000/status_503 "), "{as_text}");
    }
}
