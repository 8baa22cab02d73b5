//! The control socket: how `weir reload`, `weir status` and `weir stop` reach the supervisor.
//!
//! It is a Unix socket, and every client that may connect is trusted. The socket's mode is 0600; the
//! default path is also in a private directory. The client sends one line of JSON, and the supervisor
//! replies with one line.

use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use rustix::net::sockopt::socket_peercred;
use socket2::{Domain, SockAddr, Socket, Type};

use super::Input;
pub use super::request::{Reply, Request};

/// How many clients may wait to be accepted.
const BACKLOG: i32 = 128;
/// The longest request.
const REQUEST_BYTES_MAX: u64 = 4096;
/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait before the next accept after one failed, as it does without descriptors: trying again
/// at once would take a whole processor.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long a supervisor may take to report its status. A client that waits for something longer asks
/// for the status each time this has passed, so that it does not wait for a supervisor that hangs.
const REPLY_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a supervisor may be away that closed the connection without a reply, because it replaced
/// itself by another image.
const EXEC_TIMEOUT: Duration = Duration::from_secs(3);

/// What to do about a path that the system does not take.
const PATH_TOO_LONG: &str = "the path of a Unix socket has at most 107 bytes: give a shorter one \
                             by --control or WEIR_CONTROL";

/// The path of the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketPath {
    /// Chosen by the operator: without it the supervisor does not start.
    Explicit(PathBuf),
    /// The default: if another supervisor has it, this one runs without a control socket.
    Default(PathBuf),
}

impl SocketPath {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        let (Self::Explicit(path) | Self::Default(path)) = self;
        path
    }
}

/// The default path: `$XDG_RUNTIME_DIR/weir/control.sock`, or a directory of the user's own below
/// the directory for temporary files.
#[must_use]
pub fn default_path() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    let directory = match runtime {
        Some(directory) => PathBuf::from(directory).join("weir"),
        None => std::env::temp_dir().join(format!("weir-{}", rustix::process::geteuid().as_raw())),
    };
    directory.join("control.sock")
}

/// Which file a socket is: its device and its number there.
pub(super) type FileId = (u64, u64);

/// The open socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct ControlSocket {
    path: PathBuf,
    /// Another supervisor may have put its own socket at the path meanwhile.
    file: Option<FileId>,
    listener: UnixListener,
}

impl ControlSocket {
    pub(super) const fn file(&self) -> Option<FileId> {
        self.file
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if self.file != file_at(&self.path) {
            log::info!("control socket left alone, it is another's: path={}", self.path.display());
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            log::debug!("control socket not removed: error=\"{error}\"");
        }
    }
}

/// Opens the socket and accepts commands. `None` if the default path cannot be used.
pub(super) fn listen(
    place: &SocketPath,
    inputs: &Sender<Input>,
) -> io::Result<Option<ControlSocket>> {
    match (open(place, inputs), place) {
        (Ok(open), _) => Ok(Some(open)),
        (Err(error), SocketPath::Explicit(_)) => Err(error),
        (Err(error), SocketPath::Default(path)) => {
            log::warn!(
                "no control socket, so commands such as `weir reload` do not work, and signals do: \
                 path={} error=\"{error}\" (help: give it a path by --control)",
                path.display()
            );
            Ok(None)
        }
    }
}

fn open(place: &SocketPath, inputs: &Sender<Input>) -> io::Result<ControlSocket> {
    let path = place.path();
    if UnixStream::connect(path).is_ok() {
        let taken = format!("{} belongs to another supervisor that runs", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, taken));
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    if let SocketPath::Default(_) = place
        && !is_private(path.parent().unwrap_or(path))?
    {
        let why = "its directory is not this user's alone";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            let taken = format!("{} is there and is no socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, taken));
        }
        Err(_nothing_there) => {}
    }
    serve(bind(path)?, path, file_at(path), inputs)
}

/// Binds a socket that only this user and root may connect to.
fn bind(path: &Path) -> io::Result<UnixListener> {
    // One byte more than a client of the standard library can name would fit.
    SocketAddr::from_pathname(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the mode of the socket. A change afterwards would let another user in before it.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

/// What to do about an error of [`listen`].
#[expect(clippy::wildcard_enum_match_arm, reason = "the system's list of errors is open")]
pub(super) fn help_to_listen(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidInput => PATH_TOO_LONG,
        io::ErrorKind::AddrInUse => {
            "stop that one, or give this one another path by --control or WEIR_CONTROL"
        }
        _ => "give it a path that this user may create by --control or WEIR_CONTROL",
    }
}

/// The file at this path.
pub(super) fn file_at(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Accepts commands from a socket that is open already.
pub(super) fn serve(
    listener: UnixListener,
    path: &Path,
    file: Option<FileId>,
    inputs: &Sender<Input>,
) -> io::Result<ControlSocket> {
    let (ours, inputs) = (listener.try_clone()?, inputs.clone());
    let serve = move || ours.incoming().for_each(|stream| accept_client(stream, &inputs));
    thread::Builder::new().name("control".to_owned()).spawn(serve)?;
    Ok(ControlSocket { path: path.to_owned(), file, listener })
}

/// Whether a directory belongs to this user and no other user may enter it.
fn is_private(directory: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(directory)?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    Ok(found.is_dir() && ours && found.mode() & 0o077 == 0)
}

fn accept_client(stream: io::Result<UnixStream>, inputs: &Sender<Input>) {
    let inputs = inputs.clone();
    let taken = stream.and_then(|stream| {
        let serve = move || {
            if let Err(error) = handle_client(&stream, &inputs) {
                log::debug!("no reply to a command: error=\"{error}\"");
            }
        };
        thread::Builder::new().spawn(serve)
    });
    if let Err(error) = taken {
        log::error!("command not accepted: error=\"{error}\"");
        thread::park_timeout(RETRY_INTERVAL);
    }
}

fn handle_client(stream: &UnixStream, inputs: &Sender<Input>) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    let mut request: Request = serde_json::from_str(&line)?;
    if let Request::Override(command) = &mut request {
        command.by = author(stream);
    }
    if request == Request::StopAndWait {
        return inputs.send(Input::StopAndWait(stream.try_clone()?)).map_err(io::Error::other);
    }
    let (reply, answer) = mpsc::channel();
    inputs.send(Input::Command(request, reply)).map_err(io::Error::other)?;
    let answer = answer.recv().map_err(io::Error::other)?;
    write(stream, &answer)
}

/// Who has connected.
fn author(stream: &UnixStream) -> String {
    match socket_peercred(stream) {
        Ok(peer) => format!("uid={} pid={}", peer.uid.as_raw(), peer.pid.as_raw_nonzero()),
        Err(_not_known) => "unknown".to_owned(),
    }
}

fn write(mut stream: &UnixStream, answer: &Reply) -> io::Result<()> {
    stream.write_all(&serde_json::to_vec(answer)?)?;
    stream.write_all(b"\n")
}

/// Replies to a client that waits for the end. Its connection stays open: the system closes it with
/// the process, and that is how the client knows that the process is gone.
pub(super) fn reply_at_the_end(stream: UnixStream, answer: &Reply) {
    let written =
        stream.set_write_timeout(Some(RETRY_INTERVAL)).and_then(|()| write(&stream, answer));
    if let Err(error) = written {
        log::debug!("reply to a stop not sent: error=\"{error}\"");
    }
    let _open_to_the_end = stream.into_raw_fd();
}

/// Sends a command to a running supervisor. One that is replaced meanwhile gets it again, except a stop.
///
/// # Errors
/// None runs, or it went away.
pub fn ask(path: &Path, request: &Request) -> io::Result<Reply> {
    let mut answer = ask_once(path, request)?;
    let mut waited = Duration::ZERO;
    while answer.is_none() && request.may_be_asked_again() && waited < EXEC_TIMEOUT {
        thread::park_timeout(RETRY_INTERVAL);
        waited += RETRY_INTERVAL;
        answer = ask_once(path, request).unwrap_or_default();
    }
    let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before it replied");
    answer.ok_or_else(gone)
}

/// What to do about an error of [`ask`].
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "the system's list of errors is open")]
pub fn help_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "it is there and does not reply: look at its process and its log"
        }
        io::ErrorKind::InvalidInput => PATH_TOO_LONG,
        io::ErrorKind::NotFound => {
            "no weir runs with this control socket: start one by `weir run`, or name the socket of one \
             that runs by --control PATH or WEIR_CONTROL"
        }
        io::ErrorKind::ConnectionRefused => {
            "the weir of this control socket has ended: start one by `weir run`, or name the socket of \
             one that runs by --control PATH or WEIR_CONTROL"
        }
        io::ErrorKind::PermissionDenied => "run it as the user of that weir, or as root",
        io::ErrorKind::UnexpectedEof => "look at its log for the reason",
        _ => "be the user that runs it, and give the same --control or WEIR_CONTROL",
    }
}

/// `None` if it closed the connection before it replied.
fn ask_once(path: &Path, request: &Request) -> io::Result<Option<Reply>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    let mut line = String::new();
    let asked = (|| {
        stream.write_all(&serde_json::to_vec(request)?)?;
        stream.write_all(b"\n")?;
        let mut reader = BufReader::new(stream);
        let is_alive = || is_alive(path, request);
        let read = read_while_alive(is_alive, || reader.read_line(&mut line))?;
        if *request == Request::StopAndWait {
            // Closed by the end of the process.
            read_while_alive(is_alive, || io::copy(&mut reader, &mut io::sink()))?;
        }
        Ok(read)
    })();
    match asked {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(serde_json::from_str(&line)?)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads until data comes, as long as the supervisor is alive.
fn read_while_alive<T>(
    is_alive: impl Fn() -> bool,
    mut read: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match read() {
            Err(error) if is_timeout(&error) => {
                if !is_alive() {
                    let after = humantime::format_duration(REPLY_TIMEOUT);
                    let why = format!("it does not reply within {after}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
            }
            done => return done,
        }
    }
}

/// Whether a supervisor that has not replied yet reports its status. One that stops may have closed its
/// socket before its last reply.
fn is_alive(path: &Path, request: &Request) -> bool {
    match request {
        Request::Status => false,
        Request::Reload | Request::Backends(_) | Request::Override(_) => {
            ask_once(path, &Request::Status).is_ok()
        }
        Request::Stop | Request::StopAndWait => {
            !ask_once(path, &Request::Status).is_err_and(|error| is_timeout(&error))
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::mpsc::channel;

    #[test]
    fn only_this_user_may_connect_from_the_moment_the_socket_exists() {
        let name = format!("weir-control-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        drop(fs::remove_file(&path));
        let listener = bind(&path).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let _client = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_path_that_clients_could_not_use_is_rejected() {
        let path = Path::new("/").join("x".repeat(107));
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    /// A new directory below the one for temporary files.
    fn directory(name: &str, mode: u32) -> PathBuf {
        let path = std::env::temp_dir().join(format!("weir-unit-{}-{name}", std::process::id()));
        let _absent = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn commands_have_the_names_that_other_versions_know() {
        for (request, text) in [
            (Request::Reload, "reload"),
            (Request::Status, "status"),
            (Request::Stop, "stop"),
            (Request::StopAndWait, "finish"),
        ] {
            let text = format!("\"{text}\"");
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
        for text in ["\"Reload\"", "\"stop_and_wait\"", "{}", ""] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_command_is_read_from_one_line_and_replied_to_with_one() {
        let (inputs, received) = channel();
        let (mut client, ours) = UnixStream::pair().unwrap();
        let serve = thread::spawn(move || handle_client(&ours, &inputs).unwrap());
        client.write_all(b"\"status\"\nthe rest is not read").unwrap();
        let Ok(Input::Command(Request::Status, reply)) = received.recv() else { panic!() };
        reply.send(Reply::failed("a\nb".to_owned())).unwrap();
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).unwrap();
        assert_eq!(line, "{\"done\":false,\"text\":\"a\\nb\"}\n");
        serve.join().unwrap();
    }

    #[test]
    fn a_command_that_is_too_long_or_unknown_reaches_nothing() {
        let blanks = usize::try_from(REQUEST_BYTES_MAX).unwrap();
        let long = format!("{}\"status\"\n", " ".repeat(blanks));
        for text in [long.as_str(), "\"restart\"\n", "\n"] {
            let (inputs, received) = channel();
            let (mut client, ours) = UnixStream::pair().unwrap();
            client.write_all(text.as_bytes()).unwrap();
            assert!(handle_client(&ours, &inputs).is_err());
            assert!(received.try_recv().is_err());
        }
    }

    #[test]
    fn only_a_directory_of_this_user_alone_is_private() {
        for (mode, expected) in [(0o700, true), (0o710, false), (0o701, false), (0o755, false)] {
            let path = directory("private", mode);
            assert_eq!(is_private(&path).unwrap(), expected, "{mode:o}");
            fs::remove_dir(&path).unwrap();
        }
        let path = directory("link", 0o700);
        let link = path.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(!is_private(&link).unwrap(), "its target may be changed");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced_and_another_file_is_not() {
        let (inputs, _received) = channel();
        let directory = directory("stale", 0o700);
        let place = SocketPath::Explicit(directory.join("control.sock"));
        drop(UnixListener::bind(place.path()).unwrap());
        let socket = listen(&place, &inputs).unwrap().unwrap();
        let taken = listen(&place, &inputs).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse, "one that is served is not taken");
        assert_eq!(socket.file(), file_at(place.path()));
        drop(socket);
        assert_eq!(file_at(place.path()), None);
        fs::write(place.path(), "precious").unwrap();
        let refused = listen(&place, &inputs).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(place.path()).unwrap(), "precious");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_that_another_supervisor_has_put_there_is_left() {
        let (inputs, _received) = channel();
        let directory = directory("other", 0o700);
        let place = SocketPath::Explicit(directory.join("control.sock"));
        let socket = listen(&place, &inputs).unwrap().unwrap();
        // The number of a removed file could be given to the new one.
        fs::rename(place.path(), directory.join("moved")).unwrap();
        fs::write(place.path(), "another's").unwrap();
        drop(socket);
        assert!(file_at(place.path()).is_some());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_default_path_fails_without_stopping_the_service_and_an_explicit_one_does_not() {
        let (inputs, _received) = channel();
        let directory = directory("open", 0o755);
        let path = directory.join("control.sock");
        assert!(listen(&SocketPath::Default(path.clone()), &inputs).unwrap().is_none());
        assert!(listen(&SocketPath::Explicit(path), &inputs).unwrap().is_some());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_client_waits_for_as_long_as_the_supervisor_is_alive() {
        let late = || io::Error::from(io::ErrorKind::WouldBlock);
        let mut results = vec![Ok(7), Err(late()), Err(late())];
        assert_eq!(read_while_alive(|| true, || results.pop().unwrap()).unwrap(), 7);
        let hung = read_while_alive(|| false, || Err::<(), _>(late())).unwrap_err();
        assert_eq!(hung.kind(), io::ErrorKind::TimedOut);
        let broken = || Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe));
        let error = read_while_alive(|| panic!("not asked"), broken).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_command_without_a_reply_is_sent_again_unless_it_stops_the_service() {
        for (request, connections) in [(Request::Reload, 2), (Request::Stop, 1)] {
            let directory = directory("again", 0o700);
            let path = directory.join("control.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let serve = thread::spawn(move || {
                // The image that is replaced closes the first connection.
                for count in 1..=connections {
                    let (stream, _) = listener.accept().unwrap();
                    let mut line = String::new();
                    BufReader::new(&stream).read_line(&mut line).unwrap();
                    if count == 2 {
                        write(&stream, &Reply::done("reloaded".to_owned())).unwrap();
                    }
                }
            });
            let reply = ask(&path, &request);
            serve.join().unwrap();
            match request {
                Request::Reload => assert_eq!(reply.unwrap().text, "reloaded"),
                Request::Stop
                | Request::Status
                | Request::StopAndWait
                | Request::Backends(_)
                | Request::Override(_) => {
                    assert_eq!(reply.unwrap_err().kind(), io::ErrorKind::UnexpectedEof)
                }
            }
            fs::remove_dir_all(directory).unwrap();
        }
    }
}
