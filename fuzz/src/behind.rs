//! The scanner against what is behind it: Pingora's parser and the `http` crate.
//!
//! This target needs Pingora, so `tests/behind.rs` of Weir replays its corpus, and not the simulation.

use pingora_core::protocols::http::v1::server::HttpSession;
use tokio::io::AsyncWriteExt as _;
use weir::http::scan::{Limits, MessagePart, Scanner};
use weir::http::target::{Absolute, ReplacedByte, escaped, restored};

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
}

const LIMITS: Limits = Limits { target_bytes: 65_534, header_bytes: 65_536, headers: 100 };

/// The first byte says how the others are cut into reads. Whatever the scanner passes, Pingora must take,
/// and the target must be the one that the client wrote and one that a backend can get.
pub fn behind(data: &[u8]) {
    let Some((cut, written)) = data.split_first() else { return };
    let Some((passed, changes)) = scanned(written, usize::from(*cut) + 1) else { return };
    let start = if written.starts_with(b"\r\n") { 2 } else { 0 };
    let head = written.get(start..).unwrap_or_default();
    if !head.windows(4).any(|end| end == b"\r\n\r\n") {
        return; // more of it is awaited
    }
    RUNTIME.with(|runtime| runtime.block_on(parsed(&passed, head, &changes)));
}

/// What goes on of the bytes, and which of them something else stands for; `None` if the first head is
/// refused.
fn scanned(written: &[u8], size: usize) -> Option<(Vec<u8>, Vec<ReplacedByte>)> {
    let mut scanner = Scanner::new(LIMITS);
    let (mut passed, mut changes) = (Vec::new(), Vec::new());
    for piece in written.chunks(size) {
        let mut piece = piece.to_vec();
        let fed = scanner.feed(&piece);
        changes.extend(scanner.change(&mut piece).filter(|change| change.message == 1));
        match fed {
            Ok(_) => passed.extend(piece),
            Err(broken) if broken.message == 1 && broken.part == MessagePart::Head => return None,
            Err(broken) => {
                passed.extend(piece.get(..broken.valid_prefix).unwrap_or_default());
                break;
            }
        }
    }
    (scanner.begun() > 0).then_some((passed, changes))
}

async fn parsed(passed: &[u8], head: &[u8], changes: &[ReplacedByte]) {
    let (mut client, server) = tokio::io::duplex(passed.len() + 1);
    client.write_all(passed).await.expect("there is room");
    drop(client);
    let mut session = HttpSession::new(Box::new(server));
    let read = session.read_request().await;
    assert!(matches!(read, Ok(Some(_))), "refused behind the scanner: {read:?}");
    let request = session.req_header_mut();
    let written = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let target = restored(request.raw_path(), changes);
    assert_eq!(target.as_bytes(), written, "another target");
    let absolute = Absolute::of(&target).map(|it| it.origin_form(false).into_owned());
    let own = escaped(absolute.as_deref().unwrap_or(&target)).into_owned();
    assert!(own.len() <= target.len() * 3 && !own.contains(['<', '>', '"']), "{own}");
    let is_path = own.starts_with('/') || own == "*";
    assert!(request.set_raw_path(own.as_bytes()).is_ok(), "no target for a backend: {own}");
    assert!(!is_path || request.raw_path() == own.as_bytes(), "{own}");
}
