//! How single values are written.
//!
//! Only what can be said of one value alone is said here; ranges, defaults and what values mean
//! together are `check`'s.

mod address;
mod breaker;
mod count;
mod duration;
mod fields;
mod http;
mod matching;
mod path;
mod ready_when;
mod service;
mod size;

pub use address::parse_backend_url;
pub(super) use address::{AdminAddress, BackendUrl, ServerName, normal_host};
pub(super) use breaker::{CountedFailure, Percent, TimesOrOff};
pub(super) use count::CountOrOff;
pub use duration::parse_duration;
pub(super) use duration::{DurationOrOff, secs};
pub(super) use fields::{ChangedField, ContentType, FieldValue, RedirectStatus, Target};
pub(super) use http::{Failure, HostName, Path, ProbePath, Statuses};
pub(super) use matching::{ExactPath, FieldName, PathRegex};
pub(super) use ready_when::ReadyWhen;
pub(super) use service::ServiceName;
pub(super) use size::{Size, SizeOrOff, bytes};

use super::problem::{Diagnostics, Problem, quote};
use super::read::{Bounds, FromNode, FromText, IntoMeaning, KeyContext, ValueError};
use super::terms::FilePath;
use super::yaml::{Node, Value, text};
use crate::name::{PoolName, RouteName};

/// Any text. (That it is not empty holds for every text.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl FromText for Text {
    const EXPECTED: &'static str = "text";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        Ok(Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }

    fn from_number(typed: &str) -> Option<ValueError> {
        Some(in_quotes(typed))
    }
}

impl IntoMeaning for Text {
    type Meaning = String;

    fn meaning(self) -> String {
        self.0
    }
}

/// The name of a file, with its position.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FileName(pub(super) FilePath);

impl FromNode for FileName {
    fn expected(bounds: Bounds) -> String {
        Text::expected(bounds)
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        let Text(path) = Text::from_node(node, key, found)?;
        Some(Self(FilePath { path: path.into(), at: node.at.position() }))
    }

    fn to_yaml(&self) -> String {
        text(&self.0.path.to_string_lossy())
    }
}

impl IntoMeaning for FileName {
    type Meaning = FilePath;

    fn meaning(self) -> FilePath {
        self.0
    }
}

macro_rules! name {
    ($($name:ident),+) => {$(
        impl FromText for $name {
            const EXPECTED: &'static str = "a name";

            fn from_text(text: &str) -> Result<Self, ValueError> {
                Self::new(text).map_err(|error| {
                    ValueError::new(format!("{} is not a name", quote(text))).help(error.to_string())
                })
            }

            fn to_text(&self) -> String {
                self.as_str().to_owned()
            }

            fn from_number(typed: &str) -> Option<ValueError> {
                Some(in_quotes(typed))
            }
        }
    )+};
}
name!(PoolName, RouteName);

/// A number where a text is expected.
fn in_quotes(typed: &str) -> ValueError {
    ValueError::new(format!("{} is a number, but this must be text", quote(typed)))
        .help(format!("put it in quotes: {}", quote(&format!("\"{typed}\""))))
}

/// How many threads, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    Auto,
    Count(u64),
}

impl FromNode for Threads {
    fn expected(_bounds: Bounds) -> String {
        "`auto` or a whole number".to_owned()
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        match (&node.value, node.text()) {
            (Value::Whole(count), _) => return Some(Self::Count(*count)),
            (_, Some("auto")) => return Some(Self::Auto),
            (_, Some(typed)) => {
                let what = format!("{} is not a number of threads", quote(typed));
                found.add(Problem::new(node.at, what).help("write `auto` or a whole number"));
            }
            _ => found.add(key.wrong_type(node, &Self::expected(Bounds::Any))),
        }
        None
    }

    fn to_yaml(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Count(count) => count.to_string(),
        }
    }
}
