//! gRPC health check by `grpc.health.v1.Health`.
//!
//! The request is a message with one string, the response a message with one number. That is so
//! little protobuf that it is encoded and decoded here by hand.

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
use crate::probe::target::{ProbeTarget, unexpected};
use crate::upstream::error_kinds::NOT_HTTP2;

/// A valid response is a few bytes.
const RESPONSE_BYTES_MAX: usize = 1024;
/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: u8 = 1;

/// Requests the health of one service on a new connection.
pub(super) struct GrpcProbe {
    connector: Connector,
    service: String,
}

/// What the backend sent.
#[derive(Debug, Default)]
struct Response {
    http: u16,
    grpc: Option<u16>,
    body: Vec<u8>,
}

impl GrpcProbe {
    pub(super) fn new(service: &str, options: ConnectorOptions) -> Self {
        Self { connector: Connector::new(Some(options)), service: service.to_owned() }
    }

    async fn send(&self, target: &ProbeTarget) -> Result<Response> {
        let mut peer = HttpPeer::clone(&target.peer);
        // The health check uses HTTP/2, whatever protocol requests use.
        peer.options.alpn = ALPN::H2;
        let (session, _reused) = self.connector.get_http_session(&peer).await?;
        let HttpSession::H2(mut session) = session else {
            return Err(Error::explain(ErrorType::InvalidH2, NOT_HTTP2));
        };
        let mut request = RequestHeader::build("POST", b"/grpc.health.v1.Health/Check", Some(5))?;
        request.append_header("Host", &*target.label)?;
        request.append_header("Content-Type", "application/grpc")?;
        request.append_header("TE", "trailers")?;
        request.append_header("User-Agent", USER_AGENT)?;
        to_http2(&mut request, &peer)?;
        session.write_request_header(Box::new(request), false)?;
        session.write_request_body(Bytes::from(encode_request(&self.service)), true).await?;
        read_response(&mut session).await
    }
}

async fn read_response(session: &mut Http2Session) -> Result<Response> {
    let mut response = Response::default();
    session.read_response_header().await?;
    if let Some(headers) = session.response_header() {
        response.http = headers.status.as_u16();
        response.grpc = grpc::status(&headers.headers);
    }
    while let Some(piece) = session.read_response_body().await? {
        response.body.extend_from_slice(&piece);
        if response.body.len() > RESPONSE_BYTES_MAX {
            return Ok(response);
        }
    }
    if let Some(trailers) = session.read_trailers().await? {
        response.grpc = grpc::status(&trailers).or(response.grpc);
    }
    Ok(response)
}

#[async_trait]
impl HealthCheck for GrpcProbe {
    async fn check(&self, backend: &lb::Backend) -> Result<()> {
        self.send(ProbeTarget::of(backend)?).await?.judge().map_err(unexpected)
    }

    fn health_threshold(&self, _success: bool) -> usize {
        EACH_RESULT
    }
}

impl Response {
    fn judge(&self) -> Result<(), String> {
        match (self.http, self.grpc) {
            (200, Some(0)) => {}
            // NOT_FOUND: the protocol's status for an unknown service.
            (200, Some(5)) => return Err("unknown service".to_owned()),
            (200, Some(status)) => return Err(format!("grpc-status {status}, expected 0")),
            (200, None) => return Err("no grpc-status".to_owned()),
            (http, _) => return Err(format!("status {http}, expected 200")),
        }
        match decode_status(&self.body) {
            Some(SERVING) => Ok(()),
            Some(status) => Err(format!("it says {}, expected SERVING", status_name(status))),
            None => Err("the response is not a grpc.health.v1 message".to_owned()),
        }
    }
}

/// The name of this number in `HealthCheckResponse.ServingStatus`.
fn status_name(status: u8) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => format!("the decode_status status {other}"),
    }
}

/// `HealthCheckRequest`: field 1 is a string, omitted if empty. The gRPC prefix is the flag for
/// uncompressed and the length.
fn encode_request(service: &str) -> Vec<u8> {
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

/// The number in a `HealthCheckResponse`: field 1, or 0 if it is omitted.
fn decode_status(framed: &[u8]) -> Option<u8> {
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
    fn a_request_has_a_length_and_the_service_name() {
        assert_eq!(encode_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(encode_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = encode_request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn a_response_is_one_number() {
        assert_eq!(decode_status(&[0, 0, 0, 0, 2, 0x08, 1]), Some(1));
        assert_eq!(decode_status(&[0, 0, 0, 0, 2, 0x08, 2]), Some(2));
        assert_eq!(decode_status(&[0, 0, 0, 0, 0]), Some(0));
        for wrong in [&b""[..], b"\x01\0\0\0\x02\x08\x01", b"\0\0\0\0\x03\x08\x01", b"hello world"]
        {
            assert_eq!(decode_status(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_a_serving_backend_passes() {
        let of = |http, grpc, body: &[u8]| Response { http, grpc, body: body.to_vec() }.judge();
        let serves = [0, 0, 0, 0, 2, 0x08, 1];
        assert_eq!(of(200, Some(0), &serves), Ok(()));
        let sick = of(200, Some(0), &[0, 0, 0, 0, 2, 0x08, 2]).unwrap_err();
        assert_eq!(sick, "it says NOT_SERVING, expected SERVING");
        for response in [
            of(200, Some(0), &[0, 0, 0, 0, 2, 0x08, 2]),
            of(200, Some(0), b""),
            of(200, Some(5), &serves),
            of(200, Some(14), &serves),
            of(200, None, &serves),
            of(503, Some(0), &serves),
        ] {
            assert!(response.is_err(), "{response:?}");
        }
    }
}
