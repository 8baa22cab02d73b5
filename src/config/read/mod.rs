//! From YAML nodes to the file as typed.
//!
//! Reading goes on after a problem: a value that cannot be read is reported and left out, so that the rest
//! of the file is still checked. Each section is described once, by `section!`; the struct, the known keys,
//! ranges, defaults, messages, the manual, `--show` and the changes of a reload all come from that
//! description.

mod entries;
mod key;
mod keyword;
mod list;
mod number;
mod section;
mod table;
mod value;

pub(super) use entries::{Entries, one_line};
pub(super) use key::{
    Bounds, Key, KeyContext, OnReload, Presence, ROOT, Schema, Section, Shape, fraction, whole,
};
pub(super) use keyword::{Keyword, KeywordValue, OffOr};
pub(super) use list::List;
pub(super) use section::section;
pub(super) use table::Table;
pub(super) use value::{FromNode, FromText, IntoMeaning, Literal, ValueError, read_quietly};
