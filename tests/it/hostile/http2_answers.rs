//! Each line of `tests/http/http2_answers.txt`, answered to the real binary by a backend of its own
//! that speaks HTTP/2.

#![expect(clippy::unwrap_used, reason = "a helper that finds something else fails the test")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use http::Method;
use socket2::SockRef;

use super::frames::{block, frame, frame_of};
use super::http2::PREFACE;
use super::table::{self, Case};
use crate::support::client::{Client, Failure};
use crate::support::http2::{Http2, request};
use crate::support::ports::own_socket;
use crate::support::weir::{LISTENER_KEYS, Weir};

const CASES: &str = include_str!("../../http/http2_answers.txt");

/// A backend whose first answer is that of the case; all others are good.
struct Answerer {
    address: SocketAddr,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

impl Answerer {
    fn start(case: &Case) -> Self {
        let listener = TcpListener::bind(own_socket(3000)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut answer = Some(case.text.clone());
        let accepting = listener.try_clone().unwrap();
        let acceptor = std::thread::spawn(move || {
            while let Ok((socket, _)) = accepting.accept() {
                let answer = answer.take();
                // A peer that has disconnected needs no response.
                std::thread::spawn(move || drop(serve(socket, answer)));
            }
        });
        Self { address, listener, acceptor: Some(acceptor) }
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        drop(SockRef::from(&self.listener).shutdown(Shutdown::Both));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

/// Answers stream 1 with the frames of the case, if there are any, and all others well.
fn serve(mut socket: TcpStream, mut answer: Option<String>) -> std::io::Result<()> {
    if answer.as_deref().is_none_or(|answer| !answer.starts_with("RAW HTTP")) {
        socket.write_all(&frame(0x4, 0, 0, b""))?;
    }
    let mut preface = [0; PREFACE.len()];
    socket.read_exact(&mut preface)?;
    assert_eq!(preface, PREFACE);
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head)?;
        let [high, middle, low, kind, flags, stream @ ..] = head;
        let mut payload =
            vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
        socket.read_exact(&mut payload)?;
        match kind {
            0x1 => {
                let Some(frames) = answer.take() else {
                    let stream = u32::from_be_bytes(stream);
                    socket.write_all(&frame(0x1, 0x4, stream, &block(":status: 200")))?;
                    socket.write_all(&frame(0x0, 0x1, stream, b"hello"))?;
                    continue;
                };
                for text in frames.split(" ▸ ") {
                    match text.strip_prefix("REPEAT ") {
                        Some(text) => loop {
                            socket.write_all(&frame_of(text).0)?;
                        },
                        None if text == "END" => return Ok(()),
                        None => socket.write_all(&frame_of(text).0)?,
                    }
                }
            }
            0x4 if flags & 0x1 == 0 => socket.write_all(&frame(0x4, 0x1, 0, b""))?,
            0x6 if flags & 0x1 == 0 => socket.write_all(&frame(0x6, 0x1, 0, &payload))?,
            _ => {}
        }
    }
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Whole(u16, String),
    /// A status, and an end before that of the body.
    Cut(u16),
    Odd(String),
}

#[test]
fn a_client_of_http_1_gets_what_the_table_says() {
    judge_all(|weir, path| {
        let mut client = Client::connect(weir.address());
        match client.request("GET", path, &[], b"") {
            Ok(answer) if answer.head.header_values("x-drop").is_empty() => {
                Got::Whole(answer.status(), answer.text())
            }
            Err(Failure::TruncatedBody { head, .. }) => Got::Cut(head.status),
            other => Got::Odd(format!("{other:?}")),
        }
    });
}

#[test]
fn a_client_of_http_2_gets_what_the_table_says() {
    judge_all(|weir, path| {
        let mut client = Http2::connect(weir.address());
        let stream = client.start(request(Method::GET, path, &[]), false).unwrap();
        match stream.answer() {
            Ok(answer) if !answer.head.headers().contains_key("x-drop") => {
                Got::Whole(answer.status(), String::from_utf8_lossy(&answer.body).into_owned())
            }
            Err(error) if error.is_reset() => Got::Cut(200),
            other => Got::Odd(format!("{other:?}")),
        }
    });
}

#[track_caller]
fn judge_all(get: impl Fn(&Weir, &str) -> Got) {
    let cases = table::cases(CASES);
    let backends: Vec<Answerer> = cases.iter().map(Answerer::start).collect();
    let (mut pools, mut routes) = (String::new(), String::new());
    for (number, backend) in backends.iter().enumerate() {
        let address = backend.address;
        pools.push_str(&format!(
            "  - {{name: p{number}, protocol: h2c, health_check: off, retry: {{attempts: 1}}, \
             backends: [http://{address}]}}\n"
        ));
        routes.push_str(&format!("  - {{path: /{number}, pool: p{number}}}\n"));
    }
    let weir =
        Weir::start(&format!("{LISTENER_KEYS}http2: true\npools:\n{pools}routes:\n{routes}"));
    let wrong: Vec<String> = cases
        .iter()
        .enumerate()
        .filter_map(|(number, case)| {
            let problem = judge(case, get(&weir, &format!("/{number}"))).err().or_else(|| {
                let next = get(&weir, &format!("/{number}"));
                let is_good = next == Got::Whole(200, "hello".to_owned());
                (!is_good).then(|| format!("the next answer is {next:?}"))
            })?;
            Some(format!("{}: {}: {problem}", case.section, case.what))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn judge(case: &Case, got: Got) -> Result<(), String> {
    let expected = case.outcome.first().map_or("", String::as_str);
    match (expected, &got) {
        ("200", Got::Whole(200, body)) if body == "hello" => Ok(()),
        ("502" | "broken", Got::Whole(502, _)) => Ok(()),
        ("cut" | "broken", Got::Cut(200)) => Ok(()),
        _ => Err(format!("{got:?}")),
    }
}
