//! The ways a backend can treat a request.

use std::sync::Arc;
use std::time::Duration;

use super::Seen;

/// An answer as it goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// `None`: the backend's name.
    pub(crate) body: Option<Vec<u8>>,
}

impl Answer {
    /// The backend's name, with `status`.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: None }
    }

    /// `body`, with 200.
    pub(crate) fn body(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: Some(body.into()) }
    }

    /// One more field.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How a request is treated.
#[derive(Clone, Default)]
pub(crate) enum Behaviour {
    /// 200 and the backend's name.
    #[default]
    Good,
    /// This, with its length.
    Answer(Answer),
    /// The answer that another behaviour gives, after a while.
    AnswerSlowly(Duration, Box<Self>),
    /// 200 and these pieces, a chunk each, with a pause before all but the first.
    Chunked { pieces: Vec<Vec<u8>>, pause: Duration },
    /// 200 and this body, ended by closing the connection.
    UntilClosed(Vec<u8>),
    /// These bytes, which should be one or more 1xx heads, then what another behaviour gives.
    Interim(String, Box<Self>),
    /// Close the connection instead of an answer.
    CloseBeforeAnswer,
    /// Reset the connection instead of an answer.
    ResetBeforeAnswer,
    /// This number of responses on each connection; the next request closes it without a response.
    CloseAfterRequests(usize),
    /// Head, half of the body, then a reset.
    ResetMidBody,
    /// No answer until [`super::Backend::release`], then a good one.
    NeverAnswer,
    /// A head that never ends: one byte per pause.
    HalfHead { pause: Duration },
    /// These bytes, then close.
    Garbage(Vec<u8>),
    /// These bytes, and the connection stays open.
    Raw(Vec<u8>),
    /// A length of `promised`, a body of `sent` bytes, then close.
    WrongLength { promised: usize, sent: usize },
    /// 101, then every byte back.
    Upgrade(String),
    /// What the function says for this request.
    By(Arc<dyn Fn(&Seen) -> Self + Send + Sync>),
}

impl Behaviour {
    /// The backend's name, with `status`.
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(Answer::status(status))
    }

    /// A good answer, after a while.
    pub(crate) fn slow(wait: Duration) -> Self {
        Self::AnswerSlowly(wait, Box::new(Self::Good))
    }
}
