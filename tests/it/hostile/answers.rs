//! Each line of `tests/http/answers.txt`, answered to the real binary by a backend.

use super::table::{self, Case};
use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{Client, Failure, Framing};
use crate::support::configs::pool;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually, within};

const ANSWERS: &str = include_str!("../../http/answers.txt");
/// Closes the connection.
const END: &[u8] = "∎".as_bytes();

#[test]
fn every_answer_of_the_table_comes_to_what_the_table_says() {
    let backend = Backend::start("one");
    let weir = Weir::start(&pool(std::slice::from_ref(&backend), "retry: {attempts: 1}"));
    let cases = table::cases(ANSWERS);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let problem = answered(case, &weir, &backend).err()?;
            Some(format!("{}: {}: {problem}", case.section, case.what))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn answered(case: &Case, weir: &Weir, backend: &Backend) -> Result<(), String> {
    end_kept_connection(weir, backend)?;
    backend.set(match case.bytes.strip_suffix(END) {
        Some(bytes) => Behaviour::Garbage(bytes.to_vec()),
        None => Behaviour::Raw(case.bytes.clone()),
    });
    let method = if case.has("head") { "HEAD" } else { "GET" };
    let mut client = Client::connect(weir.address());
    let answer = client.request(method, "/", &[], b"");
    let status = case.statuses().first().copied();
    match (&answer, status) {
        (Ok(answer), Some(status)) if answer.status() == status && !case.has("cut") => {
            let is_empty = matches!(status, 204 | 304) || case.has("head");
            let body = if is_empty { "" } else { "hello" };
            if status < 400 && answer.text() != body {
                return Err(format!("the body is {:?}", answer.text()));
            }
            let framed = ["content-length", "transfer-encoding"];
            if status == 204 && framed.iter().any(|name| answer.header(name).is_some()) {
                return Err(format!("it tells of a body: {answer:?}"));
            }
            if answer.head.version != "HTTP/1.1" {
                return Err(format!("it speaks {}", answer.head.version));
            }
            if status == 200 && !is_empty && answer.framing == Framing::Close {
                return Err("the end of the body is ambiguous".to_owned());
            }
            if !answer.head.header_values("x-drop").is_empty() || !answer.trailers.is_empty() {
                return Err(format!("{answer:?}"));
            }
        }
        (Ok(answer), None) if answer.status() == 502 => {}
        (Err(Failure::TruncatedBody { .. } | Failure::Reset { .. }), _)
            if case.has("cut") || case.has("broken") => {}
        _ => return Err(format!("{answer:?}")),
    }
    let reused = case.has("reused") || (status == Some(200) && case.outcome.len() == 1);
    connection_is(reused, weir, backend)
}

/// Ends the connection that may be kept, so that the next request has a new one. Weir ends it itself: it could
/// not know yet of one that the backend has only just ended.
fn end_kept_connection(weir: &Weir, backend: &Backend) -> Result<(), String> {
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    backend.set(Behaviour::Raw(last.into()));
    let response = Client::connect(weir.address()).get("/");
    let closed = within(TIMEOUT, || (backend.connections_open() == 0).then_some(()));
    closed.ok_or_else(|| format!("the connection before is kept after {response:?}"))
}

/// Whether the backend's connection is used for the next request, or closed.
fn connection_is(reused: bool, weir: &Weir, backend: &Backend) -> Result<(), String> {
    backend.set(Behaviour::Good);
    if !reused {
        let closed = within(TIMEOUT, || (backend.connections_open() == 0).then_some(()));
        return closed.ok_or_else(|| "the backend's connection is kept".to_owned());
    }
    // Its client may have the answer before the connection is given back; the lease comes after that.
    eventually(TIMEOUT, "the lease is back", || {
        weir.metrics().sum("lb_backend_in_flight_requests", &[]) == 0.0
    });
    let connections = backend.connections();
    let next = Client::connect(weir.address()).get("/");
    if next.text() != "one" {
        return Err(format!("the next answer is {next:?}"));
    }
    eventually(TIMEOUT, "the request has come", || backend.in_flight() == 0);
    if backend.connections() == connections {
        Ok(())
    } else {
        Err("the backend's connection is not used again".to_owned())
    }
}
