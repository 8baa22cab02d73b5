//! How single values are written.
//!
//! Only what can be said of one value alone is said here; ranges, defaults and what values mean
//! together are `check`'s.

mod address;
mod duration;
mod fields;
mod http;
mod matching;
mod ready_when;
mod size;

pub(super) use address::{AdminAddress, BackendUrl, ServerName, normal_host};
pub(super) use duration::{DurationOrOff, spell};
pub(super) use fields::{ChangedField, ContentType, FieldValue, RedirectStatus, Target};
pub(super) use http::{Failure, HostName, Path, ProbePath, Statuses};
pub(super) use matching::{ExactPath, FieldName, PathRegex};
pub(super) use ready_when::ReadyWhen;
pub(super) use size::{Size, SizeOrOff, spell_size};

use super::problem::{Diagnostics, Problem, quote};
use super::read::{FromNode, FromText, KeyContext, ValueError};
use super::yaml::{Node, Value};
use crate::name::{PoolName, RouteName};

/// Any text. (That it is not empty holds for every text.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl FromText for Text {
    const EXPECTED: &'static str = "text";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        Ok(Self(text.to_owned()))
    }

    fn from_number(typed: &str) -> Option<ValueError> {
        Some(in_quotes(typed))
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
    fn expected() -> String {
        "`auto` or a whole number".to_owned()
    }

    fn from_node(node: &Node, field: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        match (&node.value, node.text()) {
            (Value::Whole(count), _) => return Some(Self::Count(*count)),
            (_, Some("auto")) => return Some(Self::Auto),
            (_, Some(typed)) => {
                let what = format!("{} is not a number of threads", quote(typed));
                found.add(Problem::new(node.at, what).help("write `auto` or a whole number"));
            }
            _ => found.add(field.wrong_type(node, &Self::expected())),
        }
        None
    }
}
