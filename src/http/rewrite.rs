//! Rewrites the path of a request.
//!
//! A new path is made from the normalized path (see [`super::path`]), never from the original
//! bytes: what remains of `/a/../b/x` after the prefix `/b` does not exist in those bytes. The
//! result is normalized again, so that no part from a client can introduce a dot segment, or
//! `//host` at the start.

use super::path::{any_reading, has_prefix, is_ambiguous, normalize_for_routing};
use super::pattern::{Pattern, PatternError};

/// How a new path is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewPath {
    /// This path, whatever the old one was.
    Whole(String),
    /// Replaces a prefix: the part of the path below `old` moves below `new`.
    Prefix {
        /// The prefix of the route.
        old: String,
        /// Its replacement.
        new: String,
    },
    /// The groups of a pattern, inserted into a template.
    Pattern(Pattern, Template),
}

impl NewPath {
    /// The new path for `path`. Both are normalized by [`normalize_for_routing`]. A path that the
    /// pattern does not match stays unchanged.
    #[must_use]
    pub fn of(&self, path: &str) -> String {
        let new = match self {
            Self::Whole(new) => new.clone(),
            Self::Prefix { old, new } => {
                let below = path.strip_prefix(old.as_str()).unwrap_or(path);
                format!("{new}/{below}")
            }
            Self::Pattern(pattern, template) => match pattern.captures(path) {
                Some(groups) => template.fill(|group| groups.get(group).copied().flatten()),
                None => path.to_owned(),
            },
        };
        let below_nothing = matches!(self, Self::Prefix { old, .. } if old == path);
        let normal = normalize_for_routing(&new);
        // The prefix itself is not a folder: `/old` becomes `/new` and not `/new/`.
        match normal.strip_suffix('/') {
            Some(shorter) if below_nothing && !shorter.is_empty() => shorter.to_owned(),
            _ => normal.into_owned(),
        }
    }

    /// Whether every reading of `new`, a result of [`NewPath::of`], stays below the start that the
    /// operator wrote. For a servlet container, `/app/..;/x` is not below `/app`.
    #[must_use]
    pub fn keeps(&self, new: &str) -> bool {
        let start = match self {
            Self::Whole(_) => return true,
            Self::Prefix { new, .. } => new.as_str(),
            Self::Pattern(_, template) => template.folder(),
        };
        // A start that is ambiguous by itself is the operator's choice.
        let is_unambiguous = is_ambiguous(start) || !is_ambiguous(new);
        is_unambiguous || !any_reading(new, |reading| !has_prefix(reading, start))
    }
}

/// A text with placeholders for the groups of a pattern: `$1`, `${1}`, `${name}`; `$$` is `$`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Group(usize),
}

impl Template {
    /// Parses a template for the groups of `pattern`.
    ///
    /// # Errors
    /// A `$` refers to a group that the pattern does not have.
    pub fn new(source: &str, pattern: &Pattern) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let mut pieces = source.split('$');
        push(&mut parts, pieces.next().unwrap_or_default());
        while let Some(piece) = pieces.next() {
            if piece.is_empty() {
                // Two `$` in a row; the text after the second is literal.
                let plain = pieces.next().ok_or_else(|| {
                    PatternError::new("a `$` at the end names no group (`$$` is a dollar sign)")
                })?;
                push(&mut parts, &format!("${plain}"));
                continue;
            }
            let (name, rest) = group_name(piece)?;
            let group = pattern
                .group(name)
                .ok_or_else(|| PatternError::new(format!("the pattern has no group `{name}`")))?;
            parts.push(TemplatePart::Group(group));
            push(&mut parts, rest);
        }
        Ok(Self { source: source.to_owned(), parts })
    }

    /// The template as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The complete segments before the first group.
    fn folder(&self) -> &str {
        match self.parts.as_slice() {
            [TemplatePart::Text(text)] => text,
            [TemplatePart::Text(start), ..] => match start.rfind('/') {
                Some(slash) if slash > 0 => start.get(..slash).unwrap_or("/"),
                _ => "/",
            },
            _ => "/",
        }
    }

    fn fill<'a>(&self, group: impl Fn(usize) -> Option<&'a str>) -> String {
        let mut text = String::new();
        for part in &self.parts {
            text.push_str(match part {
                TemplatePart::Text(plain) => plain,
                TemplatePart::Group(index) => group(*index).unwrap_or_default(),
            });
        }
        text
    }
}

fn push(parts: &mut Vec<TemplatePart>, text: &str) {
    if !text.is_empty() {
        parts.push(TemplatePart::Text(text.to_owned()));
    }
}

/// The name of a group at the start of `piece`, and the text after it. A number ends with its last
/// digit, so `$1x` is the first group and an `x`.
fn group_name(piece: &str) -> Result<(&str, &str), PatternError> {
    if let Some(inner) = piece.strip_prefix('{') {
        return inner
            .split_once('}')
            .ok_or_else(|| PatternError::new("a `${` is not closed by a `}`"));
    }
    let end = piece.find(|c: char| !c.is_ascii_digit()).unwrap_or(piece.len());
    match piece.split_at_checked(end) {
        Some((digits, rest)) if !digits.is_empty() => Ok((digits, rest)),
        _ => Err(PatternError::new(
            "a `$` is followed by a number or a name in braces: `$1`, `${name}` (`$$` is a dollar sign)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(old: &str, new: &str) -> NewPath {
        NewPath::Prefix { old: old.to_owned(), new: new.to_owned() }
    }

    fn pattern(pattern: &str, template: &str) -> NewPath {
        let pattern = Pattern::new(pattern).unwrap();
        let template = Template::new(template, &pattern).unwrap();
        NewPath::Pattern(pattern, template)
    }

    #[test]
    fn the_part_below_a_prefix_moves_below_the_new_one() {
        assert_eq!(prefix("/old", "/new").of("/old/a/b"), "/new/a/b");
        assert_eq!(prefix("/old", "/new").of("/old"), "/new");
        assert_eq!(prefix("/old", "/new").of("/old/"), "/new/");
        assert_eq!(prefix("/old", "/").of("/old/a"), "/a");
        assert_eq!(prefix("/old", "/").of("/old"), "/");
        assert_eq!(prefix("/", "/new").of("/a"), "/new/a");
        assert_eq!(prefix("/", "/new").of("/"), "/new");
    }

    #[test]
    fn groups_are_inserted_into_the_template() {
        let users = pattern("/users/([0-9]+)(/.*)?", "/u/$1x$2");
        assert_eq!(users.of("/users/42/photo"), "/u/42x/photo");
        assert_eq!(users.of("/users/42"), "/u/42x");
        assert_eq!(users.of("/else"), "/else");
        assert_eq!(pattern("/(?P<first>.)(.)", "/${2}${first}$$1").of("/ab"), "/ba$1");
    }

    #[test]
    fn a_template_can_only_use_existing_groups() {
        let wrong = |template| {
            let pattern = Pattern::new("/(a)(?P<b>c)").unwrap();
            Template::new(template, &pattern).unwrap_err().to_string()
        };
        assert_eq!(wrong("/$3"), "the pattern has no group `3`");
        assert_eq!(wrong("/${x}"), "the pattern has no group `x`");
        assert_eq!(wrong("/${b"), "a `${` is not closed by a `}`");
        assert!(wrong("/$").starts_with("a `$` at the end"));
        assert!(wrong("/$b").starts_with("a `$` is followed by"));
    }

    #[test]
    fn parts_of_the_old_path_introduce_no_dot_segment_and_no_double_slash() {
        assert_eq!(pattern("/(.)x(.)(/.*)?", "/$1$2$3").of("/.x./b"), "/b");
        assert_eq!(pattern("/x(.*)", "/$1").of("/x/evil.test"), "/evil.test");
    }

    #[test]
    fn every_reading_of_a_new_path_stays_below_the_start_that_the_operator_wrote() {
        let app = prefix("/", "/app");
        for stays in ["/x", "/x;a=1/y", "/x%2Fy", "/x/%2E%2E/y", "/x/..;/y", "/x%2F..%2Fy"] {
            assert!(app.keeps(&app.of(stays)), "{stays}");
        }
        for leaves in
            ["/..;/admin", "/%2e%2e;a/admin", "/x%2F..%2F..%2Fadmin", "/..\\admin", "/..%00/x"]
        {
            assert!(!app.keeps(&app.of(leaves)), "{leaves}");
        }
        let users = pattern("/users/(.*)", "/u/v$1");
        assert!(users.keeps(&users.of("/users/1;x")));
        assert!(!users.keeps(&users.of("/users/x/..;/..;/admin")));
        let all = prefix("/old", "/");
        assert!(all.keeps(&all.of("/old/..;/admin")), "the root is never left");
        let odd = prefix("/", "/a;b");
        assert!(odd.keeps(&odd.of("/x;y")), "the operator wrote that");
    }

    proptest! {
        #[test]
        fn every_new_path_is_normalized(path in "(/[a.%2fe;]{0,3}){0,5}") {
            let path = normalize_for_routing(&path).into_owned();
            let ways = [prefix("/a", "/"), prefix("/", "/b"), pattern("/(.*?)(/.*)?", "/$2$1")];
            for new in ways.map(|way| way.of(&path)) {
                prop_assert!(new.starts_with('/') && !new.starts_with("//"), "{}", new);
                prop_assert_eq!(normalize_for_routing(&new).into_owned(), new);
            }
        }
    }
}
