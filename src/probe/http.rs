//! HTTP health check: sends `GET path` and verifies the response.
//!
//! It reads at most a bounded part of the body.

use async_trait::async_trait;
use http::{Uri, header};
use pingora::http::RequestHeader;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{ErrorType, OrErr as _, Result};
use pingora_load_balancing as lb;
use pingora_load_balancing::health_check::HealthCheck;

use crate::config::StatusSet;
use crate::config::limits::PROBE_BODY_BYTES_MAX;
use crate::probe::EACH_RESULT;
use crate::probe::target::{ProbeTarget, unexpected};

pub(super) const USER_AGENT: &str = concat!("weir-probe/", env!("CARGO_PKG_VERSION"));

/// Sends a `GET` on a new connection and checks the status and the beginning of the body. A
/// redirect is a response like any other.
pub(super) struct HttpProbe {
    connector: Connector,
    path: String,
    host: Option<String>,
    status: StatusSet,
    body: Option<String>,
}

impl HttpProbe {
    pub(super) fn new(
        path: &str,
        host: Option<&str>,
        status: &StatusSet,
        body: Option<&str>,
        options: ConnectorOptions,
    ) -> Self {
        Self {
            connector: Connector::new(Some(options)),
            path: path.to_owned(),
            host: host.map(str::to_owned),
            status: status.clone(),
            body: body.map(str::to_owned),
        }
    }

    fn request(&self, target: &ProbeTarget) -> Result<RequestHeader> {
        let mut request = RequestHeader::build("GET", self.path.as_bytes(), Some(4))?;
        let host = self.host.as_deref().unwrap_or(&target.label);
        request.append_header("Host", host)?;
        request.append_header("User-Agent", USER_AGENT)?;
        request.append_header("Accept", "*/*")?;
        request.append_header("Connection", "close")?;
        Ok(request)
    }

    /// Sends the request. Returns the status; the body is not read yet.
    async fn send(&self, target: &ProbeTarget) -> Result<(u16, HttpSession)> {
        // The caller applies a timeout to the whole probe.
        let (mut session, _reused) = self.connector.get_http_session(&*target.peer).await?;
        let mut request = Box::new(self.request(target)?);
        if session.as_http2().is_some() {
            to_http2(&mut request, &target.peer)?;
        }
        session.write_request_header(request).await?;
        session.finish_request_body().await?;
        loop {
            session.read_response_header().await?;
            let status = session.response_header().map_or(0, |headers| headers.status.as_u16());
            // An interim response precedes the final one.
            if !(100..200).contains(&status) || status == 101 {
                return Ok((status, session));
            }
        }
    }
}

/// Converts a request to HTTP/2: the host moves from `Host` to the target, and `Connection` is
/// removed.
pub(super) fn to_http2(request: &mut RequestHeader, peer: &HttpPeer) -> Result<()> {
    let host = request.remove_header(&header::HOST);
    let host = host.as_ref().map_or(&b""[..], |host| host.as_bytes());
    let target = str::from_utf8(request.raw_path()).unwrap_or("/").to_owned();
    let scheme = if peer.is_tls() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(target);
    request.set_uri(uri.build().or_err(ErrorType::InternalError, "a probe's target")?);
    request.remove_header(&header::CONNECTION);
    Ok(())
}

#[async_trait]
impl HealthCheck for HttpProbe {
    async fn check(&self, backend: &lb::Backend) -> Result<()> {
        let (status, mut session) = self.send(ProbeTarget::of(backend)?).await?;
        if !self.status.contains(status) {
            return Err(unexpected(format!("status {status}, expected {}", ranges(&self.status))));
        }
        let body = body(&mut session).await?;
        match &self.body {
            Some(expected) if !contains(&body, expected.as_bytes()) => {
                Err(unexpected("the body does not have the expected text"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn health_threshold(&self, _success: bool) -> usize {
        EACH_RESULT
    }
}

/// The body, up to the limit.
async fn body(session: &mut HttpSession) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < PROBE_BODY_BYTES_MAX {
        let Some(piece) = session.read_response_body().await? else { break };
        let room = PROBE_BODY_BYTES_MAX - body.len();
        body.extend_from_slice(piece.get(..room).unwrap_or(&piece));
    }
    Ok(body)
}

fn contains(body: &[u8], expected: &[u8]) -> bool {
    expected.is_empty() || body.windows(expected.len()).any(|window| window == expected)
}

/// The set in the notation of the configuration file.
fn ranges(set: &StatusSet) -> String {
    let range = |&(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    set.0.iter().map(range).collect::<Vec<_>>().join(", ")
}
