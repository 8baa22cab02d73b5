//! What comes back: heads, answers, and the ways there can be none.

use std::io;

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none: HEAD, 204, 304, or a length of 0.
    Bodiless,
    ContentLength,
    Chunked,
    /// It ends where the connection does.
    Close,
}

/// A status line and the fields after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// As they came: order, case and repetition.
    pub(crate) headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) framing: Framing,
    pub(crate) trailers: Vec<(String, String)>,
    /// The 1xx answers before it.
    pub(crate) interim: Vec<Head>,
}

/// Why there is no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Closed before the first byte.
    NoAnswer,
    /// Closed inside the head.
    TruncatedHead(String),
    /// Closed inside the body, after this number of bytes.
    TruncatedBody { head: Head, got: usize },
    /// Reset by the other side; `got` bytes of this answer had come, head included.
    Reset { got: usize },
    /// Nothing came in time.
    TimedOut,
    /// Not HTTP.
    Malformed(String),
    /// Anything else, such as a refused connection.
    Io(String),
}

impl Head {
    /// The value of the only field called `name`; fails the test if there are several.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.header_values(name);
        assert!(values.len() <= 1, "{name} came {} times: {values:?}", values.len());
        values.first().copied()
    }

    /// The values of all fields called `name`.
    pub(crate) fn header_values(&self, name: &str) -> Vec<&str> {
        let is_it = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.headers.iter().filter(is_it).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether the server is going to close the connection after this answer.
    pub(crate) fn is_last(&self) -> bool {
        let says = |word: &str| {
            let values = self.header_values("connection");
            values.iter().flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(word))
        };
        says("close") || (self.version == "HTTP/1.0" && !says("keep-alive"))
    }
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.text()))
    }
}

/// Where `needle` starts in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

pub(crate) fn io_failure(error: &io::Error, got: usize) -> Failure {
    let kind = error.kind();
    if kind == io::ErrorKind::WouldBlock || kind == io::ErrorKind::TimedOut {
        Failure::TimedOut
    } else if kind == io::ErrorKind::ConnectionReset || kind == io::ErrorKind::BrokenPipe {
        Failure::Reset { got }
    } else {
        Failure::Io(error.to_string())
    }
}

pub(crate) fn parse_head(text: &str) -> Result<Head, Failure> {
    let malformed = || Failure::Malformed(format!("head {text:?}"));
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
    let version = words.next().filter(|word| word.starts_with("HTTP/")).ok_or_else(malformed)?;
    let status = words.next().and_then(|word| word.parse().ok()).ok_or_else(malformed)?;
    let reason = words.next().unwrap_or_default().to_owned();
    let headers = lines.map(parse_field).collect::<Result<_, _>>()?;
    Ok(Head { version: version.to_owned(), status, reason, headers })
}

pub(crate) fn parse_field(line: &str) -> Result<(String, String), Failure> {
    let (name, value) =
        line.split_once(':').ok_or_else(|| Failure::Malformed(format!("field {line:?}")))?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

pub(crate) fn framing(method: &str, head: &Head) -> Result<Framing, Failure> {
    if method == "HEAD" || matches!(head.status, 101 | 204 | 304) {
        return Ok(Framing::Bodiless);
    }
    let codings = head.header_values("transfer-encoding");
    if codings.iter().any(|coding| coding.eq_ignore_ascii_case("chunked")) {
        if !head.header_values("content-length").is_empty() {
            return Err(Failure::Malformed("both a length and chunks".to_owned()));
        }
        return Ok(Framing::Chunked);
    }
    Ok(match content_length(head)? {
        Some(0) => Framing::Bodiless,
        Some(_) => Framing::ContentLength,
        None => Framing::Close,
    })
}

pub(crate) fn content_length(head: &Head) -> Result<Option<usize>, Failure> {
    let values = head.header_values("content-length");
    match values.as_slice() {
        [] => Ok(None),
        [one] => {
            let length = one.parse().map(Some);
            length.map_err(|error| Failure::Malformed(format!("length {one:?}: {error}")))
        }
        many => Err(Failure::Malformed(format!("lengths {many:?}"))),
    }
}
