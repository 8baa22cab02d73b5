//! Words for what is not YAML.
//!
//! The scanners say what they were doing when they stopped, in terms that few people know. Their
//! words are kept, so that they can be searched for; the probable cause is the help.

use std::net::Ipv6Addr;

use super::super::problem::{Position, Problem, quote};

/// What a scanner refuses `at` a place in `text`. `open` is where the innermost list or map that
/// has not ended began.
pub(super) fn problem(info: &str, at: Position, open: Option<Position>, text: &str) -> Problem {
    let problem = Problem::in_file(at, format!("this is not YAML: {info}"));
    if let Some(tab) = tab(text, at.line) {
        return Problem { at: Some(tab), ..problem }
            .help("indent with spaces: YAML does not allow tabs there");
    }
    if let Some(address) = line(text, at.line).and_then(bare_ipv6) {
        return problem.help(format!(
            "{} has brackets, which YAML gives a meaning: put the whole value in quotes",
            quote(address)
        ));
    }
    let bracket = open.and_then(|open| Some((bracket(text, open)?, open)));
    match (info, bracket) {
        (info, _) if info.contains("unknown anchor") => {
            problem.help("text that begins with `*` needs quotes: \"*.example.com\"")
        }
        (info, _) if info.contains("quoted scalar") => problem.help("is the quote closed?"),
        (info, _) if info.contains("unexpected character") => {
            problem.help("text that begins with this character needs quotes")
        }
        (_, Some((bracket, opened))) => {
            problem.help(format!("is the `{bracket}` at {opened} closed?"))
        }
        (info, None) if info.contains("simple key") || info.contains("mapping values") => problem
            .help(
                "a key needs a `:` and a space after it, and text with `: ` in it needs quotes; \
                 the mistake may be in the line above",
            ),
        (_, None) => {
            problem.help("the keys of a map start in one column, and so do the `-` of a list")
        }
    }
}

fn line(text: &str, number: usize) -> Option<&str> {
    text.lines().nth(number.checked_sub(1)?)
}

/// The bracket at a place, if one is there.
fn bracket(text: &str, at: Position) -> Option<char> {
    let character = line(text, at.line)?.chars().nth(at.column.checked_sub(1)?)?;
    matches!(character, '[' | '{').then_some(character)
}

/// An IPv6 address in brackets, in a line without quotes.
fn bare_ipv6(line: &str) -> Option<&str> {
    if line.contains(['"', '\'']) {
        return None;
    }
    line.split('[').skip(1).find_map(|rest| {
        let (address, _) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().is_ok().then_some(address)
    })
}

/// A tab in the indentation of the line where the scanner stopped, or of the next one: it stops at
/// the end of what it still understood.
fn tab(text: &str, number: usize) -> Option<Position> {
    [number, number + 1].into_iter().find_map(|number| {
        let mut blank = line(text, number)?.chars().take_while(|c| matches!(c, ' ' | '\t'));
        let before = blank.position(|c| c == '\t')?;
        Some(Position { line: number, column: before + 1 })
    })
}
