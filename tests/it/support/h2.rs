//! A backend that speaks HTTP/2 without TLS, and says what it saw.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::ports;

/// A request whose head has arrived.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The number of its connection, from 1.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// What has come of it.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// A server of HTTP/2. What it does is in the path:
///
/// - `/echo`: every piece of the request back as it comes, then the trailers of gRPC with status 0;
/// - `/expand`: the same, and every piece 64 times; nothing more is read before that is written;
/// - `/early`: the whole answer before anything is read, then everything is;
/// - `/enough`: the whole answer, then the stream is reset without an error (RFC 9113 §8.1);
/// - `/deaf`: the whole answer, and nothing of the request is ever read;
/// - `/flood`: an endless response after one [signal](H2Backend::signal), and more of the request
///   than fits the window after a second one;
/// - `/unended`: an answer of the length that it announces, whose stream does not end;
/// - `/late`: two seconds pass before it reads anything;
/// - `/whole`: the whole request back once it is there, as a unary call does; status 0;
/// - `/only-head`: a status of gRPC, 5, and nothing else;
/// - `/refuse-once`: the stream is refused (RFC 9113 §8.7) the first time, and served from then on;
/// - `/http1`: the stream is reset, for it is to be asked by HTTP/1.1;
/// - `/last`: served, and the connection takes no stream after it;
/// - `/never`: no answer;
/// - `/usual`: served after 100 ms; after [`H2Backend::fall_silent`] no answer;
/// - `/expect`: leave to send the body (100), and once all of it has come, `h2`;
/// - `/hints`: hints (103), and `h2`;
/// - `/end/…`: `hello`, ended as the rest of the path says (`hello`);
/// - `/grpc.health.v1.Health/Check`: the [configured](H2Backend::health) status;
/// - else 200 and `h2`.
///
/// Where the request has `x-fail-first`, the stream is refused the first time that the path is asked
/// for, once all of the body has come.
pub(crate) struct H2Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
    _runtime: Runtime,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    reset: Notify,
    signalled: Notify,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    connections: usize,
    open: usize,
    health: u8,
    refused: bool,
    resets: usize,
    streams_max: Option<u32>,
    signals: usize,
    written: usize,
    is_silent: bool,
}

impl H2Backend {
    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts one that allows this number of concurrent streams.
    pub(crate) fn start_with(streams_max: Option<u32>) -> Self {
        let address = ports::own_socket(50051);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let shared = Arc::<Shared>::default();
        shared.state().health = 1;
        shared.state().streams_max = streams_max;
        let listener = runtime.block_on(TcpListener::bind(address)).expect("binding");
        let served = Arc::clone(&shared);
        let acceptor = runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                tokio::spawn(async move {
                    shared.state().open += 1;
                    serve(socket, Arc::clone(&shared)).await;
                    shared.state().open -= 1;
                });
            }
        });
        Self { address, shared, acceptor, _runtime: runtime }
    }

    /// Accepts no further connections, and serves the existing ones.
    pub(crate) fn stop_accepting(&self) {
        self.acceptor.abort();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// As it is written in a configuration.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it says of its health from now on: 1 is that it serves.
    pub(crate) fn health(&self, status: u8) {
        self.shared.state().health = status;
    }

    /// Requests that have arrived, without those for its health.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let state = self.shared.state();
        state.calls.iter().filter(|call| !call.path.starts_with("/grpc.health")).cloned().collect()
    }

    /// Those for its health.
    pub(crate) fn checks(&self) -> Vec<Call> {
        let state = self.shared.state();
        state.calls.iter().filter(|call| call.path.starts_with("/grpc.health")).cloned().collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Connections open now.
    pub(crate) fn connections_open(&self) -> usize {
        self.shared.state().open
    }

    /// Does not respond to `/usual` from now on.
    pub(crate) fn fall_silent(&self) {
        self.shared.state().is_silent = true;
    }

    /// Lets `/flood` go on.
    pub(crate) fn signal(&self) {
        self.shared.state().signals += 1;
        self.shared.signalled.notify_waiters();
    }

    /// How many bytes of `/flood` have left.
    pub(crate) fn flooded(&self) -> usize {
        self.shared.state().written
    }

    /// How many requests for `/never`, `/usual`, `/deaf` and `/unended` the other side has given up.
    pub(crate) fn resets(&self) -> usize {
        self.shared.state().resets
    }
}

impl Shared {
    fn given_up(&self) {
        self.state().resets += 1;
        self.reset.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a task of the backend panicked")
    }
}

async fn serve(socket: TcpStream, shared: Arc<Shared>) {
    let (number, streams_max) = {
        let mut state = shared.state();
        state.connections += 1;
        (state.connections, state.streams_max)
    };
    let mut builder = server::Builder::new();
    if let Some(most) = streams_max {
        builder.max_concurrent_streams(most);
    }
    let Ok(mut connection) = builder.handshake(socket).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let at = note(&shared, number, &request);
        let path = request.uri().path().to_owned();
        if path == "/last" {
            connection.graceful_shutdown();
        }
        tokio::spawn(answer(path, request, respond, Arc::clone(&shared), at));
    }
}

fn note(shared: &Shared, connection: usize, request: &Request<RecvStream>) -> usize {
    let uri = request.uri();
    let mut state = shared.state();
    state.calls.push(Call {
        connection,
        method: request.method().to_string(),
        scheme: uri.scheme_str().unwrap_or_default().to_owned(),
        authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
        path: uri.path().to_owned(),
        headers: request.headers().clone(),
        body: Vec::new(),
        trailers: None,
    });
    state.calls.len() - 1
}

/// What is decided by more than a whole path; gives back what is not served yet.
async fn first(
    path: &str,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
    at: usize,
) -> Option<(Request<RecvStream>, SendResponse<Bytes>)> {
    let is_first = || shared.state().calls.iter().filter(|call| call.path == path).count() == 1;
    if request.headers().contains_key("x-fail-first") && is_first() {
        read(request.into_body(), shared, at).await;
        respond.send_reset(Reason::REFUSED_STREAM);
    } else if let "/expect" | "/hints" = path {
        let status = if path == "/expect" { 100 } else { 103 };
        let interim = Response::builder().status(status).body(()).expect("a head");
        drop(respond.send_informational(interim));
        return Some((request, respond));
    } else if let Some(end) = path.strip_prefix("/end/") {
        let of_head = request.method() == http::Method::HEAD;
        read(request.into_body(), shared, at).await;
        drop(hello(end, of_head, respond));
    } else {
        return Some((request, respond));
    }
    None
}

async fn answer(
    path: String,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    at: usize,
) {
    let Some((request, mut respond)) = first(&path, request, respond, &shared, at).await else {
        return;
    };
    let body = request.into_body();
    match path.as_str() {
        "/echo" => drop(echo(body, respond, 1, &shared, at).await),
        "/expand" => drop(echo(body, respond, 64, &shared, at).await),
        "/late" => {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            read(body, &shared, at).await;
            drop(say(&mut respond, Response::builder(), b"late".to_vec(), None));
        }
        "/usual" if !shared.state().is_silent => {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            drop(say(&mut respond, Response::builder(), b"h2".to_vec(), None));
        }
        "/never" | "/usual" => {
            let _reason = std::future::poll_fn(|context| respond.poll_reset(context)).await;
            shared.given_up();
        }
        "/early" => {
            drop(say(&mut respond, Response::builder(), b"early".to_vec(), None));
            read(body, &shared, at).await;
        }
        "/enough" => {
            drop(say(&mut respond, Response::builder(), b"enough".to_vec(), None));
            // A reset takes with it what has not left yet.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            respond.send_reset(Reason::NO_ERROR);
        }
        "/unended" => {
            let head = Response::builder().header("content-length", "5");
            let head = head.body(()).expect("a head");
            let Ok(mut stream) = respond.send_response(head, false) else { return };
            drop(stream.send_data("whole".into(), false));
            let _reason = std::future::poll_fn(|context| stream.poll_reset(context)).await;
            shared.given_up();
        }
        "/deaf" => {
            drop(say(&mut respond, Response::builder(), b"deaf".to_vec(), None));
            let _reason = std::future::poll_fn(|context| respond.poll_reset(context)).await;
            shared.given_up();
            drop(body);
        }
        "/flood" => drop(flood(body, respond, shared, at).await),
        "/refuse-once" if !std::mem::replace(&mut shared.state().refused, true) => {
            respond.send_reset(Reason::REFUSED_STREAM);
        }
        "/http1" => respond.send_reset(Reason::HTTP_1_1_REQUIRED),
        "/whole" => {
            read(body, &shared, at).await;
            let whole = shared.state().calls.get(at).map(|call| call.body.clone());
            drop(say(&mut respond, head(), whole.unwrap_or_default(), Some("0")));
        }
        "/only-head" => {
            let head = head().header("grpc-status", "5").body(()).expect("a head");
            drop(respond.send_response(head, true));
        }
        "/grpc.health.v1.Health/Check" => {
            read(body, &shared, at).await;
            let status = shared.state().health;
            let message = vec![0, 0, 0, 0, 2, 0x08, status];
            drop(say(&mut respond, head(), message, Some("0")));
        }
        _ => {
            read(body, &shared, at).await;
            drop(say(&mut respond, Response::builder(), b"h2".to_vec(), None));
        }
    }
}

/// Says `hello`, and that this is all in the given way.
fn hello(end: &str, of_head: bool, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut head = Response::builder();
    if end.starts_with("length") {
        head = head.header("content-length", "5");
    }
    if end == "none" {
        head = head.status(204);
    }
    let is_over = of_head || matches!(end, "none" | "head");
    let mut stream = respond.send_response(head.body(()).expect("a head"), is_over)?;
    match end {
        _ if is_over => Ok(()),
        "data" | "length" => stream.send_data("hello".into(), true),
        "empty" | "length-empty" => {
            stream.send_data("hello".into(), false)?;
            stream.send_data(Bytes::new(), true)
        }
        "trailers" => {
            stream.send_data("hello".into(), false)?;
            stream.send_trailers(trailers("0"))
        }
        "forbidden-trailers" => {
            stream.send_data("hello".into(), false)?;
            let fields = [("content-length", "7"), ("set-cookie", "a=b"), ("x-after", "1")];
            let fields = fields.map(|(name, value)| {
                (name.parse().expect("a name"), value.parse().expect("a value"))
            });
            stream.send_trailers(HeaderMap::from_iter(fields))
        }
        _ => stream.send_data(Bytes::new(), true),
    }
}

fn head() -> http::response::Builder {
    Response::builder().header("content-type", "application/grpc")
}

fn say(
    respond: &mut SendResponse<Bytes>,
    head: http::response::Builder,
    body: Vec<u8>,
    grpc: Option<&'static str>,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head.body(()).expect("a head"), false)?;
    stream.send_data(body.into(), grpc.is_none())?;
    match grpc {
        Some(status) => stream.send_trailers(trailers(status)),
        None => Ok(()),
    }
}

fn trailers(status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        "grpc-status".parse().expect("a name"),
        status.parse().expect("a value"),
    )])
}

async fn read(mut body: RecvStream, shared: &Shared, at: usize) {
    while let Some(Ok(piece)) = body.data().await {
        drop(body.flow_control().release_capacity(piece.len()));
        if let Some(call) = shared.state().calls.get_mut(at) {
            call.body.extend_from_slice(&piece);
        }
    }
    let trailers = body.trailers().await.ok().flatten();
    if let Some(call) = shared.state().calls.get_mut(at) {
        call.trailers = trailers;
    }
}

async fn echo(
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    times: usize,
    shared: &Shared,
    at: usize,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head().body(()).expect("a head"), false)?;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        drop(body.flow_control().release_capacity(piece.len()));
        if let Some(call) = shared.state().calls.get_mut(at) {
            call.body.extend_from_slice(&piece);
        }
        let mut rest = Bytes::from(piece.repeat(times));
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let Some(Ok(room)) =
                std::future::poll_fn(|context| stream.poll_capacity(context)).await
            else {
                return Ok(());
            };
            stream.send_data(rest.split_to(room.min(rest.len())), false)?;
        }
    }
    stream.send_trailers(trailers("0"))
}

async fn until_signalled(shared: &Shared, times: usize) {
    loop {
        let signalled = shared.signalled.notified();
        if shared.state().signals >= times {
            return;
        }
        signalled.await;
    }
}

async fn flood(
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    at: usize,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head().body(()).expect("a head"), false)?;
    let writer = Arc::clone(&shared);
    tokio::spawn(async move {
        until_signalled(&writer, 1).await;
        stream.reserve_capacity(usize::from(u16::MAX));
        while let Some(Ok(room)) =
            std::future::poll_fn(|context| stream.poll_capacity(context)).await
            && stream.send_data(vec![b'y'; room].into(), false).is_ok()
        {
            writer.state().written += room;
            stream.reserve_capacity(usize::from(u16::MAX));
        }
    });
    let mut held = 0;
    let mut is_signalled = std::pin::pin!(until_signalled(&shared, 2));
    let mut may_release = false;
    loop {
        tokio::select! {
            () = &mut is_signalled, if !may_release => may_release = true,
            piece = body.data() => {
                let Some(piece) = piece else { return Ok(()) };
                let piece = piece?;
                held += piece.len();
                if let Some(call) = shared.state().calls.get_mut(at) {
                    call.body.extend_from_slice(&piece);
                }
            }
        }
        if may_release {
            body.flow_control().release_capacity(std::mem::take(&mut held))?;
        }
    }
}
