//! An HTTP/2 client, and one that sends arbitrary frames.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::TIMEOUT;
use super::tls::TlsConfig;

/// One connection.
pub(crate) struct Http2 {
    runtime: Arc<Runtime>,
    send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A request on its way.
pub(crate) struct Stream {
    runtime: Arc<Runtime>,
    response: ResponseFuture,
    body: SendStream<Bytes>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    /// Its head said that there is nothing behind it.
    pub(crate) ended_with_its_head: bool,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }
}

impl Http2 {
    /// Begins with HTTP/2 on a clear connection.
    #[track_caller]
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let runtime = runtime();
        let socket = runtime.block_on(tokio::net::TcpStream::connect(to)).unwrap();
        Self::over(runtime, socket)
    }

    /// By ALPN.
    #[track_caller]
    pub(crate) fn connect_tls(to: SocketAddr, config: TlsConfig, name: &str) -> Self {
        let runtime = runtime();
        let config = config.alpn(&["h2", "http/1.1"]).rustls();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpStream::connect(to).await.unwrap();
            tokio_rustls::TlsConnector::from(config).connect(name, socket).await.unwrap()
        });
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(runtime, stream)
    }

    fn over(
        runtime: Arc<Runtime>,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (send, connection) = runtime.block_on(h2::client::handshake(io)).unwrap();
        let connection = runtime.spawn(connection);
        Self { runtime, send, connection }
    }

    /// Sends a head; the body follows, if there is one.
    pub(crate) fn start(
        &mut self,
        request: Request<()>,
        has_body: bool,
    ) -> Result<Stream, h2::Error> {
        let mut ready = self.send.clone();
        ready = self.runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, ready.ready()).await.expect("a stream may begin")
        })?;
        let _inside = self.runtime.enter();
        let (response, body) = ready.send_request(request, !has_body)?;
        Ok(Stream { runtime: Arc::clone(&self.runtime), response, body })
    }

    /// `GET`, with further fields.
    pub(crate) fn get(
        &mut self,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, h2::Error> {
        self.start(request(Method::GET, target, headers), false)?.answer()
    }

    /// Waits until the server has ended the connection; why, if it said so.
    #[track_caller]
    pub(crate) fn ended(self) -> Option<Reason> {
        drop(self.send);
        let ended = self.runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, self.connection).await.expect("it is ended")
        });
        ended.unwrap().err().and_then(|error| error.reason())
    }

    /// Whether the server has said that no more streams may begin, or is gone.
    pub(crate) fn is_going_away(&mut self) -> bool {
        let mut ready = self.send.clone();
        let begun = self.runtime.block_on(async {
            ready = tokio::time::timeout(TIMEOUT, ready.ready()).await.expect("an answer")?;
            ready.send_request(request(Method::GET, "/", &[]), true).map(drop)
        });
        begun.is_err()
    }
}

impl Stream {
    /// Sends a piece of the body, as far as the server's windows let it.
    pub(crate) fn send(&mut self, bytes: &[u8], last: bool) -> Result<(), h2::Error> {
        let _inside = self.runtime.enter();
        self.body.send_data(Bytes::copy_from_slice(bytes), last)
    }

    pub(crate) fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), h2::Error> {
        let _inside = self.runtime.enter();
        self.body.send_trailers(trailers)
    }

    /// Waits for the next interim response; `None` if the response itself comes.
    pub(crate) fn interim(&mut self) -> Option<Response<()>> {
        let Self { runtime, response, .. } = self;
        let next = runtime.block_on(async {
            let next = std::future::poll_fn(|context| response.poll_informational(context));
            tokio::time::timeout(TIMEOUT, next).await.expect("an interim response in time")
        });
        next.transpose().unwrap()
    }

    /// How many bytes of the body the server would take now, behind all that was sent.
    pub(crate) fn window(&mut self) -> usize {
        let _inside = self.runtime.enter();
        self.body.reserve_capacity(1 << 20);
        self.body.capacity()
    }

    pub(crate) fn reset(&mut self) {
        let _inside = self.runtime.enter();
        self.body.send_reset(Reason::CANCEL);
    }

    /// Waits for the whole answer.
    pub(crate) fn answer(self) -> Result<Answer, h2::Error> {
        let Self { runtime, response, body: _body } = self;
        runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, whole(response)).await.expect("an answer in time")
        })
    }

    /// Sends `piece` this number of times, with a pause before each, until there is a response.
    pub(crate) fn trickle(
        self,
        piece: &[u8],
        pause: Duration,
        pieces: usize,
    ) -> Result<Answer, h2::Error> {
        let Self { runtime, response, mut body } = self;
        runtime.block_on(async {
            let answer = tokio::time::timeout(TIMEOUT * 3, whole(response));
            tokio::pin!(answer);
            let mut sent = 0;
            loop {
                tokio::select! {
                    answer = &mut answer => return answer.expect("an answer in time"),
                    () = tokio::time::sleep(pause), if sent < pieces => {
                        sent += 1;
                        // Whether the server still wants it, its answer says.
                        drop(body.send_data(Bytes::copy_from_slice(piece), sent == pieces));
                    }
                }
            }
        })
    }
}

async fn whole(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let ended_with_its_head = body.is_end_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await?;
    let head = Response::from_parts(head, ());
    Ok(Answer { head, body: bytes, trailers, ended_with_its_head })
}

/// A stream whose answer has begun.
pub(crate) struct Both {
    runtime: Arc<Runtime>,
    pub(crate) head: http::response::Parts,
    answer: h2::RecvStream,
    body: SendStream<Bytes>,
}

impl Stream {
    /// Waits for the head of the answer; both directions go on.
    pub(crate) fn both(self) -> Result<Both, h2::Error> {
        let Self { runtime, response, body } = self;
        let response = runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, response).await.expect("a head in time")
        })?;
        let (head, answer) = response.into_parts();
        Ok(Both { runtime, head, answer, body })
    }
}

impl Both {
    /// Sends a piece of the body.
    pub(crate) fn send(&mut self, bytes: &[u8], last: bool) -> Result<(), h2::Error> {
        let _inside = self.runtime.enter();
        self.body.send_data(Bytes::copy_from_slice(bytes), last)
    }

    /// Reads this number of bytes of the response; fewer only at its end.
    pub(crate) fn read(&mut self, count: usize) -> Result<Vec<u8>, h2::Error> {
        let Self { runtime, answer, .. } = self;
        runtime.block_on(async {
            let read = async {
                let mut bytes = Vec::new();
                while bytes.len() < count
                    && let Some(piece) = answer.data().await
                {
                    let piece = piece?;
                    answer.flow_control().release_capacity(piece.len())?;
                    bytes.extend_from_slice(&piece);
                }
                Ok(bytes)
            };
            tokio::time::timeout(TIMEOUT, read).await.expect("bytes in time")
        })
    }

    /// The trailers, once all has been read.
    pub(crate) fn trailers(mut self) -> Result<Option<HeaderMap>, h2::Error> {
        let answer = &mut self.answer;
        self.runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, answer.trailers()).await.expect("trailers in time")
        })
    }
}

/// A head for `weir.test`.
pub(crate) fn request(method: Method, target: &str, headers: &[(&str, &str)]) -> Request<()> {
    let uri = match target.starts_with('/') {
        true => format!("http://weir.test{target}"),
        false => target.to_owned(),
    };
    let builder = Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
    headers
        .iter()
        .fold(builder, |builder, (name, value)| builder.header(*name, *value))
        .body(())
        .unwrap()
}

fn runtime() -> Arc<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Arc::new(builder.worker_threads(1).enable_all().build().unwrap())
}

/// Sends frames as bytes.
pub(crate) struct RawHttp2 {
    socket: TcpStream,
}

impl RawHttp2 {
    /// Connects, and says the preface and empty settings.
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let socket = TcpStream::connect(to).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.set_write_timeout(Some(TIMEOUT)).unwrap();
        let mut raw = Self { socket };
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        raw.send(&frame(0x4, 0, 0, b"")).unwrap();
        raw
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Sends it again and again until the server accepts no more. Returns how often.
    pub(crate) fn flood(&mut self, bytes: &[u8], most: usize) -> usize {
        // What is answered must be read, or nothing more is taken for that reason alone.
        let mut reader = self.socket.try_clone().unwrap();
        let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        let sent = (0..most).take_while(|_| self.send(bytes).is_ok()).count();
        let _ended = self.socket.shutdown(std::net::Shutdown::Both);
        let _whatever = reading.join();
        sent
    }

    /// Reads frames until the connection ends; the error code of the `GOAWAY` among them.
    pub(crate) fn goaway(&mut self) -> Option<u32> {
        let mut bytes = Vec::new();
        let _reset = self.socket.read_to_end(&mut bytes);
        let mut rest = &bytes[..];
        let mut code = None;
        while rest.len() >= 9 {
            let length =
                usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
            if rest[3] == 0x7 && rest.len() >= 17 {
                code = Some(u32::from_be_bytes(rest[13..17].try_into().unwrap()));
            }
            rest = rest.get(9 + length..).unwrap_or_default();
        }
        code
    }

    pub(crate) fn set_timeout(&self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).unwrap();
    }

    /// Reads the next frame; none if the server has closed the connection.
    #[track_caller]
    pub(crate) fn read_frame(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        match self.socket.read(&mut header[..1]).expect("a frame in time") {
            0 => return None,
            _ => self.socket.read_exact(&mut header[1..]).expect("a whole frame"),
        }
        let length =
            usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload).expect("a whole frame");
        let stream = u32::from_be_bytes(header[5..].try_into().unwrap());
        Some(Frame { kind: header[3], flags: header[4], stream, payload })
    }

    /// Reads until there is a frame of this kind with all of these flags.
    #[track_caller]
    pub(crate) fn until(&mut self, kind: u8, flags: u8) -> Frame {
        loop {
            let frame = self.read_frame().expect("the connection is open");
            if frame.kind == kind && frame.flags & flags == flags {
                return frame;
            }
        }
    }
}

/// A frame that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Of a GOAWAY: the last stream that is or will be served.
    #[track_caller]
    pub(crate) fn last_stream(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }
}

/// `GET path` for `weir.test`, without a body.
pub(crate) fn get_frame(stream: u32, path: &str) -> Vec<u8> {
    let literal = |index: u8, text: &str| {
        [&[index, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    };
    // Indexed `:method: GET` and `:scheme: http`; `:authority` and `:path` are not put into the table.
    let fields = [vec![0x82, 0x86], literal(0x01, "weir.test"), literal(0x04, path)].concat();
    frame(0x1, 0x5, stream, &fields)
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
