//! Words of HTTP: hosts, paths, statuses.

use super::super::problem::{Diagnostics, Origin, Problem, Spanned, nearest, quote};
use super::super::read::{Bounds, FromNode, FromText, IntoMeaning, KeyContext, List, ValueError};
use super::super::terms::HostPattern;
use super::super::yaml::{Node, Value};
use super::address::normal_host;
use super::path::{absolute, as_routed};

impl FromText for HostPattern {
    const EXPECTED: &'static str = "a host name";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        if text == "*" {
            return Err(
                ValueError::new("`*` alone is not a host").help("for every host, remove `host`")
            );
        }
        let (suffix, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if name.contains('*') {
            let what = format!("{} has a `*` that is not the whole first label", quote(text));
            return Err(ValueError::new(what).help("write it as `\"*.example.com\"`"));
        }
        if name.contains('/') {
            return Err(ValueError::new(format!("{} is more than a host", quote(text)))
                .help("a host has no scheme and no path: `host: api.example.com`"));
        }
        let host = normal_host(name)?;
        Ok(if suffix { Self::Suffix(host) } else { Self::Exact(host) })
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// What a probe sends as `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct HostName(pub(in super::super) String);

impl FromText for HostName {
    const EXPECTED: &'static str = "a host name";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        // As written, because a probe should be able to ask what a client asks.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        if !text.is_empty() && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(format!("{} is not a host", quote(text)))
            .help("write it as `web.internal` or `web.internal:8080`"))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// The path of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Path(pub(in super::super) String);

impl FromText for Path {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let path = absolute(text)?;
        let wrong = |what: &str| ValueError::new(format!("the path {} {what}", quote(text)));
        if let Some(start) = path.find('*').and_then(|star| path.get(..star)) {
            let start = start.trim_end_matches('/');
            let start = if start.is_empty() { "/" } else { start };
            return Err(wrong("has a `*`")
                .help(format!("a path is a prefix and needs no `*`: write {}", quote(start))));
        }
        if path.contains('?') {
            return Err(
                wrong("has a query").help("a path ends before the `?`; use `query` for parameters")
            );
        }
        if path == "/" {
            return Ok(Self(path.to_owned()));
        }
        if let Some(shorter) = path.strip_suffix('/') {
            let shorter = shorter.trim_end_matches('/');
            let shorter = if shorter.is_empty() { "/" } else { shorter };
            return Err(wrong("ends with `/`")
                .help(format!("write {}: it also matches everything below it", quote(shorter))));
        }
        let empty = |segment: &str| matches!(segment, "" | "." | "..");
        if path.split('/').skip(1).any(empty) {
            return Err(wrong("has an empty segment or a dot segment").help(
                "requests are matched after normalization, without `//`, `/./` and `/../`, so it would match nothing",
            ));
        }
        as_routed(path).map(Self)
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// The path of a probe, with its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ProbePath(pub(in super::super) String);

impl FromText for ProbePath {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        absolute(text).map(|path| Self(path.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl ProbePath {
    pub(in super::super) fn root() -> Self {
        Self("/".to_owned())
    }
}

impl Path {
    pub(in super::super) fn root() -> Self {
        Self("/".to_owned())
    }
}

impl IntoMeaning for HostName {
    type Meaning = String;

    fn meaning(self) -> String {
        self.0
    }
}

/// Status codes as typed: inclusive ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Statuses(pub(in super::super) Vec<(u16, u16)>);

impl Statuses {
    /// All that say success.
    pub(in super::super) fn success() -> Self {
        Self(vec![(200, 299)])
    }
}

impl FromNode for Statuses {
    fn expected(_bounds: Bounds) -> String {
        "a status, a range such as `200-299`, or a list of both".to_owned()
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return range(node, key, found).map(|range| Self(vec![range]));
        };
        if items.is_empty() {
            let problem =
                Problem::new(node.at, "`status` is empty, so every health check would fail");
            found.add(problem.help("remove `status` for the default, `200-299`"));
            return None;
        }
        let entry = KeyContext { entry: true, ..key };
        Some(Self(items.iter().filter_map(|item| range(item, entry, found)).collect()))
    }

    fn to_yaml(&self) -> String {
        let range = |&(first, last): &(u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        match self.0.as_slice() {
            [only] => range(only),
            ranges => format!("[{}]", ranges.iter().map(range).collect::<Vec<_>>().join(", ")),
        }
    }
}

fn range(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<(u16, u16)> {
    let typed = match node.value {
        Value::Whole(_) | Value::Text => node.typed.as_str(),
        Value::Null | Value::Bool(_) | Value::Real(_) | Value::List(_) | Value::Map(_) => {
            found.add(key.wrong_type(node, "a status or a range"));
            return None;
        }
    };
    let (first, last) = typed.split_once('-').unwrap_or((typed, typed));
    let status = |text: &str| text.trim().parse().ok().filter(|code| (100..=599).contains(code));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => return Some((first, last)),
        (Some(first), Some(last)) => {
            let problem = Problem::new(node.at, format!("the range {} is empty", quote(typed)));
            found.add(problem.help(format!("write `{last}-{first}`")));
        }
        (Some(_), None) | (None, _) => {
            let problem = Problem::new(node.at, format!("{} is not a status", quote(typed)));
            let class = typed
                .strip_suffix("xx")
                .filter(|class| matches!(*class, "1" | "2" | "3" | "4" | "5"));
            found.add(match class {
                Some(class) => problem.help(format!("write `{class}00-{class}99`")),
                None => problem.help("a status is a number from 100 to 599, a range is `200-299`"),
            });
        }
    }
    None
}

/// A failure after which a request may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum Failure {
    Connect,
    Reset,
    Timeout,
    Status(u16),
}

impl Failure {
    /// What is retried by default.
    pub(in super::super) fn usual() -> List<Self> {
        let usual = [Self::Connect, Self::Reset, Self::Timeout];
        let usual = usual.into_iter().chain([502, 503, 504].map(Self::Status));
        let spanned = |value| Spanned { at: Origin::START, value };
        let entries: Vec<Spanned<Self>> = usual.map(spanned).collect();
        List { typed: entries.len(), entries }
    }
}

const FAILURES: [(&str, Failure); 3] =
    [("connect", Failure::Connect), ("reset", Failure::Reset), ("timeout", Failure::Timeout)];

impl FromNode for Failure {
    fn expected(_bounds: Bounds) -> String {
        "`connect`, `reset`, `timeout` or a status".to_owned()
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        match (&node.value, node.text()) {
            (&Value::Whole(code), _) => return status_to_retry(code, node, found),
            (_, Some(typed)) => {
                if let Some(&(_, failure)) = FAILURES.iter().find(|(word, _)| *word == typed) {
                    return Some(failure);
                }
                let problem = Problem::new(
                    node.at,
                    format!("{} is not a failure that can be retried", quote(typed)),
                );
                found.add(match nearest(typed, FAILURES.iter().map(|&(word, _)| word)) {
                    Some(near) => problem.help(format!("did you mean `{near}`?")),
                    None => problem
                        .help(format!("it can be {}, such as 503", Self::expected(Bounds::Any))),
                });
            }
            _ => found.add(key.wrong_type(node, &Self::expected(Bounds::Any))),
        }
        None
    }

    fn to_yaml(&self) -> String {
        let word = FAILURES.iter().find(|(_, failure)| failure == self).map(|(word, _)| *word);
        match (word, self) {
            (Some(word), _) => word.to_owned(),
            (None, Self::Status(status)) => status.to_string(),
            (None, Self::Connect | Self::Reset | Self::Timeout) => String::new(),
        }
    }
}

fn status_to_retry(code: u64, node: &Node, found: &mut Diagnostics) -> Option<Failure> {
    let status =
        u16::try_from(code).ok().filter(|&code| code == 429 || (500..=599).contains(&code));
    if status.is_none() {
        let problem = Problem::new(node.at, format!("the status {code} cannot be retried"));
        found.add(problem.help("it can be 429 or 500 to 599"));
    }
    status.map(Failure::Status)
}
