//! Does it say that it serves, by `grpc.health.v1.Health`?
//!
//! One message with one string goes out, and one with one number comes back. So little of protobuf
//! is written here by hand.

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::RequestHeader;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::upstreams::peer::{ALPN, HttpPeer};
use pingora_error::{Error, ErrorType, Result};
use pingora_load_balancing as lb;
use pingora_load_balancing::health_check::HealthCheck;

use crate::http::grpc;
use crate::probe::EACH_RESULT;
use crate::probe::http::{USER_AGENT, to_http2};
use crate::probe::target::{Target, unfit};

/// An answer is a few bytes; whoever sends more does not answer this question.
const ANSWER_BYTES_MAX: usize = 1024;
/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: u8 = 1;

/// Asks for the health of one service on a new connection.
pub(super) struct GrpcProbe {
    connector: Connector,
    service: String,
}

/// What came back.
#[derive(Debug, Default)]
struct Answer {
    http: u16,
    grpc: Option<u16>,
    body: Vec<u8>,
}

impl GrpcProbe {
    pub(super) fn new(service: &str, options: ConnectorOptions) -> Self {
        Self { connector: Connector::new(Some(options)), service: service.to_owned() }
    }

    async fn ask(&self, target: &Target) -> Result<Answer> {
        let mut peer = HttpPeer::clone(&target.peer);
        // Health is asked over HTTP/2, whatever requests are sent by.
        peer.options.alpn = ALPN::H2;
        let (session, _reused) = self.connector.get_http_session(&peer).await?;
        let HttpSession::H2(mut session) = session else {
            return Err(Error::explain(ErrorType::InvalidH2, "it speaks no HTTP/2"));
        };
        let mut request = RequestHeader::build("POST", b"/grpc.health.v1.Health/Check", Some(5))?;
        request.append_header("Host", &*target.label)?;
        request.append_header("Content-Type", "application/grpc")?;
        request.append_header("TE", "trailers")?;
        request.append_header("User-Agent", USER_AGENT)?;
        to_http2(&mut request, &peer)?;
        session.write_request_header(Box::new(request), false)?;
        session.write_request_body(Bytes::from(question(&self.service)), true).await?;
        answer(&mut session).await
    }
}

async fn answer(session: &mut Http2Session) -> Result<Answer> {
    let mut answer = Answer::default();
    session.read_response_header().await?;
    if let Some(head) = session.response_header() {
        answer.http = head.status.as_u16();
        answer.grpc = grpc::status(&head.headers);
    }
    while let Some(piece) = session.read_response_body().await? {
        answer.body.extend_from_slice(&piece);
        if answer.body.len() > ANSWER_BYTES_MAX {
            return Ok(answer);
        }
    }
    if let Some(trailers) = session.read_trailers().await? {
        answer.grpc = grpc::status(&trailers).or(answer.grpc);
    }
    Ok(answer)
}

#[async_trait]
impl HealthCheck for GrpcProbe {
    async fn check(&self, backend: &lb::Backend) -> Result<()> {
        self.ask(Target::of(backend)?).await?.judge().map_err(unfit)
    }

    fn health_threshold(&self, _success: bool) -> usize {
        EACH_RESULT
    }
}

impl Answer {
    fn judge(&self) -> Result<(), String> {
        match (self.http, self.grpc) {
            (200, Some(0)) => {}
            // The service is not one that it knows of, says the protocol.
            (200, Some(5)) => return Err("it does not know the service".to_owned()),
            (200, Some(status)) => return Err(format!("grpc-status {status}, expected 0")),
            (200, None) => return Err("no grpc-status".to_owned()),
            (http, _) => return Err(format!("status {http}, expected 200")),
        }
        match serving(&self.body) {
            Some(SERVING) => Ok(()),
            Some(status) => Err(format!("it says {}, expected SERVING", word(status))),
            None => Err("the answer is not one of grpc.health.v1".to_owned()),
        }
    }
}

/// What `HealthCheckResponse.ServingStatus` calls this number.
fn word(status: u8) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => format!("the serving status {other}"),
    }
}

/// `HealthCheckRequest`: field 1, a string; none if it is empty. In front of it that it is not
/// compressed, and its length.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 4);
    if !service.is_empty() {
        message.push(0x0a);
        push_varint(&mut message, service.len());
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed
}

fn push_varint(bytes: &mut Vec<u8>, mut number: usize) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}

/// The number in a `HealthCheckResponse`: field 1, and 0 if it is not there.
fn serving(framed: &[u8]) -> Option<u8> {
    match framed {
        [0, 0, 0, 0, 0] => Some(0),
        [0, 0, 0, 0, 2, 0x08, status] => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_a_length_and_the_name_of_the_service() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn an_answer_is_one_number() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 0x08, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 0x08, 2]), Some(2));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        for wrong in [&b""[..], b"\x01\0\0\0\x02\x08\x01", b"\0\0\0\0\x03\x08\x01", b"hello world"]
        {
            assert_eq!(serving(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_a_server_that_serves_passes() {
        let of = |http, grpc, body: &[u8]| Answer { http, grpc, body: body.to_vec() }.judge();
        let serves = [0, 0, 0, 0, 2, 0x08, 1];
        assert_eq!(of(200, Some(0), &serves), Ok(()));
        let sick = of(200, Some(0), &[0, 0, 0, 0, 2, 0x08, 2]).unwrap_err();
        assert_eq!(sick, "it says NOT_SERVING, expected SERVING");
        for answer in [
            of(200, Some(0), &[0, 0, 0, 0, 2, 0x08, 2]),
            of(200, Some(0), b""),
            of(200, Some(5), &serves),
            of(200, Some(14), &serves),
            of(200, None, &serves),
            of(503, Some(0), &serves),
        ] {
            assert!(answer.is_err(), "{answer:?}");
        }
    }
}
