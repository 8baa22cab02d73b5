//! Generates texts that a pattern matches.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::pattern::Pattern;

/// Longer examples belong to patterns with huge repetitions.
const LENGTH_MAX: usize = 2048;

/// Up to two texts that `pattern` matches: the shortest, and one with some optional parts. Fewer if
/// the pattern uses look-around or non-Unicode bytes.
#[must_use]
pub fn examples(pattern: &Pattern) -> Vec<String> {
    let Ok(hir) = regex_syntax::parse(pattern.source()) else { return Vec::new() };
    let example = |generous| {
        let mut text = String::new();
        write(&hir, generous, &mut text)?;
        Some(text).filter(|text| pattern.matches(text))
    };
    let mut examples: Vec<String> = [false, true].into_iter().filter_map(example).collect();
    examples.dedup();
    examples
}

/// Recursion is as deep as the parser's nesting limit.
fn write(hir: &Hir, generous: bool, text: &mut String) -> Option<()> {
    if text.len() > LENGTH_MAX {
        return None;
    }
    match hir.kind() {
        // Assertions are verified on the complete text.
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(class) => text.push(member(class)?),
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(u32::MAX);
            let least = if generous { repetition.min.max(1) } else { repetition.min };
            for _ in 0..least.min(most) {
                write(&repetition.sub, generous, text)?;
            }
        }
        HirKind::Capture(capture) => write(&capture.sub, generous, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, generous, text))?,
        HirKind::Alternation(ways) => {
            write(if generous { ways.last()? } else { ways.first()? }, generous, text)?;
        }
    }
    Some(())
}

/// A letter or a digit if the class has one.
fn member(class: &Class) -> Option<char> {
    let Class::Unicode(class) = class else { return None };
    let has =
        |wanted: &char| class.iter().any(|range| (range.start()..=range.end()).contains(wanted));
    ('a'..='z')
        .chain('0'..='9')
        .find(has)
        .or_else(|| class.iter().next().map(|range| range.start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str) -> Vec<String> {
        examples(&Pattern::new(source).unwrap())
    }

    #[test]
    fn a_pattern_gets_a_short_and_a_longer_example() {
        assert_eq!(of("/users/([0-9]+)(/.*)?"), ["/users/0", "/users/0/a"]);
        assert_eq!(of("/(aa|b)/[^/]{2}"), ["/aa/aa", "/b/aa"]);
        assert_eq!(of("/x"), ["/x"]);
    }

    #[test]
    fn impossible_and_huge_patterns_have_no_example() {
        assert!(of(r"/a\bb").is_empty());
        assert!(of("/(a{50}){50}").is_empty());
    }
}
