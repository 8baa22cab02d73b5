//! The rules of the house that no lint knows: who may import whom, how long a file may be,
//! and that the documents speak about things that are there.
//!
//! Each rule is a function from a text to its findings, so that a test beside it can show the
//! rule fail. Rules that read code read it with comments and literals blanked, or else a
//! comment about `unsafe` would be a finding.

#[path = "tidy/ratchets.rs"]
mod ratchets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every room of the house and its floor. A room imports from lower floors only.
const ROOMS: [(&str, u8); 26] = [
    ("main", 9),
    ("supervisor", 8),
    ("link", 6),
    ("worker", 8),
    ("proxy", 7),
    ("downstream", 6),
    ("probe", 6),
    ("resolve", 6),
    ("admin", 6),
    ("demo", 6),
    ("access_log", 6),
    ("log", 5),
    ("metrics", 5),
    ("sockets", 5),
    ("descriptors", 5),
    ("current", 5),
    ("upstream", 5),
    ("tls", 4),
    ("clock", 4),
    // The small world of the edges' own unit tests.
    ("fixture", 4),
    ("exchange", 3),
    ("runtime", 2),
    ("lifecycle", 2),
    ("config", 1),
    ("policy", 0),
    ("http", 0),
];

/// Words that every room may use, the ground floor and each other included.
const VOCABULARY: [&str; 4] = ["delegate", "name", "sync", "time"];

/// The files that may say `unsafe`, each with the reason.
const UNSAFE: &[(&str, &str)] = &[
    ("src/sockets.rs", "a descriptor by its number, from systemd or the image before"),
    (
        "src/proxy/pingora/engine.rs",
        "Pingora gives a proxy with a connector of one's own to nobody",
    ),
];

/// Folders and documents in plain English, which is all of them: none of [`FORBIDDEN`] is in them.
const PLAIN: &[&str] =
    &["src/", "tests/", "benches/", "fuzz/", "docs/", "README.md", "SECURITY.md", "CHANGELOG.md"];
/// What [`PLAIN`] leaves out.
const NOT_PLAIN: &[&str] = &["tests/tidy"];

/// The files with codes, labels and metrics that an operator sees.
const CODES: &[&str] = &["src/exchange/refusal.rs", "src/metrics/"];

/// What the log lines that the manual names begin with.
const LOG_WORDS: &[&str] = &[
    "access log ",
    "binary ",
    "certificate ",
    "connection ",
    "drain ",
    "listening:",
    "log lines",
    "name ",
    "override ",
    "panic:",
    "reload ",
    "reloaded:",
    "request rejected",
    "starting:",
    "stopping",
    "too few ",
    "upgrade ",
    "worker ",
];

/// Phrases that a reader has to read twice. They leave out who does what.
const FORBIDDEN: &[&str] = &[
    "any more",
    "anybody",
    "come to nothing",
    "comes about",
    "for want of",
    "in vain",
    "is to say",
    "mended",
    "nobody",
    "of one's own",
    "so many",
    "untold",
    "what comes of",
    "whoever",
];

/// Folders in which modules still import each other in a circle. One is taken off the list with its
/// last circle, and none is added.
const CIRCLES: [&str; 0] = [];

/// The highest floor that is pure.
const CORE_FLOOR_MAX: u8 = 3;

const FILE_LINES_MAX: usize = 400;
/// Two pages.
const ARCHITECTURE_LINES_MAX: usize = 150;
const HOOK_LINES_MAX: usize = 15;

// ── the rules on this tree ──

#[test]
fn every_room_imports_only_from_lower_floors() {
    assert_none(over_sources(|path, source| imports(path, &blanked(source))));
}

#[test]
fn no_import_circle_inside_a_room() {
    let read = |path: &PathBuf| (relative(path), blanked(&read(path)));
    let sources: Vec<(String, String)> =
        files(&root().join("src"), "rs").iter().map(read).collect();
    assert!(sources.len() > 10, "looked in the wrong place: {} sources", sources.len());
    assert_none(circles(&sources, &CIRCLES));
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    assert_none(over_sources(length));
}

#[test]
fn lints_are_expected_and_never_allowed() {
    assert_none(over_sources(|path, source| allows(path, &blanked(source))));
}

#[test]
fn unsafe_code_is_where_its_reason_is_written() {
    assert_none(over_sources(|path, source| unsafes(path, &blanked(source), UNSAFE)));
}

#[test]
fn only_the_clock_knows_what_time_it_is() {
    assert_none(over_sources(|path, source| clock_reads(path, &blanked(source))));
}

#[test]
fn the_core_knows_no_socket_and_no_feature() {
    assert_none(over_sources(|path, source| impurities(path, &blanked(source))));
}

#[test]
fn there_is_one_kind_of_lock() {
    assert_none(over_sources(|path, source| std_locks(path, &blanked(source))));
}

#[test]
fn every_hook_of_the_proxy_is_short() {
    assert_none(over_sources(|path, source| hooks(path, &blanked(source))));
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut documents = files(&root().join("docs"), "md");
    documents.extend(["README.md", "CHANGELOG.md", "SECURITY.md"].map(|name| root().join(name)));
    let mut findings = Vec::new();
    for document in documents.iter().filter(|document| document.exists()) {
        let text = read(document);
        let folder = document.parent().unwrap_or(document);
        findings.extend(broken_links(&relative(document), &text, |link| is_there(folder, link)));
    }
    assert_none(findings);
}

#[test]
fn every_anchor_of_the_documents_is_a_heading() {
    let mut findings = Vec::new();
    let mut anchored = 0;
    for document in files(root(), "md") {
        let text = read(&document);
        let folder = document.parent().unwrap_or(&document);
        anchored += link_targets(&text).iter().filter(|(_, target)| target.contains('#')).count();
        let page = |file: &str| fs::read_to_string(folder.join(file)).ok();
        findings.extend(dead_anchors(&relative(&document), &text, page));
    }
    assert!(anchored > 20, "looked in the wrong place: {anchored} anchors");
    assert_none(findings);
}

#[test]
fn what_was_rewritten_in_plain_english_stays_so() {
    let folders = ["src", "tests", "benches", "fuzz"].into_iter();
    let sources = folders.flat_map(|folder| files(&root().join(folder), "rs"));
    let texts = files(root(), "md").into_iter().chain(sources);
    let is_in = |list: &[&str], path: &str| list.iter().any(|start| path.starts_with(start));
    let is_plain = |path: &String| is_in(PLAIN, path) && !is_in(NOT_PLAIN, path);
    let texts: Vec<String> = texts.map(|path| relative(&path)).filter(is_plain).collect();
    assert!(texts.len() > 100, "looked in the wrong place: {} texts", texts.len());
    assert_none(texts.iter().flat_map(|path| phrases(path, &read(&root().join(path)))).collect());
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests", "fuzz", "benches"] {
        for path in files(&root().join(folder), "rs") {
            tests.extend(tests_of(&blanked(&read(&path))));
        }
    }
    let is_test = |name: &str| match name.rsplit_once("::") {
        Some((_, last)) => tests.contains(last),
        None if name.contains('/') => root().join(name).exists(),
        None => tests.contains(name),
    };
    let mut findings = Vec::new();
    let mut named = 0;
    for document in ["docs/ARCHITECTURE.md", "docs/TESTING.md"] {
        let text = read(&root().join(document));
        named += finds(&text, "test:").chain(finds(&text, "tests:")).count();
        findings.extend(missing_tests(document, &text, is_test));
    }
    assert!(named > 40, "looked in the wrong place: {named} lists of tests");
    assert_none(findings);
}

#[test]
fn the_architecture_fits_on_two_pages() {
    let architecture = read(&root().join("docs/ARCHITECTURE.md"));
    assert_none(pages("docs/ARCHITECTURE.md", &architecture));
}

#[test]
fn the_manual_for_operators_has_every_metric_and_every_code() {
    let manual = read(&root().join("docs/OPERATIONS.md"));
    let mut named = 0;
    let mut findings = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let (path, source) = (relative(&path), read(&path));
        if CODES.iter().any(|codes| path.starts_with(codes)) && !path.ends_with("/tests.rs") {
            let names = operator_names(source.get(..tests_begin(&source)).unwrap_or(&source));
            named += names.len();
            findings.extend(undocumented(&path, &names, &manual));
        }
    }
    assert!(named > 80, "looked in the wrong place: {named} names");
    assert_none(findings);
}

#[test]
fn every_log_line_of_the_manual_for_operators_exists() {
    let manual = read(&root().join("docs/OPERATIONS.md"));
    let sources = files(&root().join("src"), "rs");
    let sources: Vec<String> = sources.iter().map(|path| joined(&read(path))).collect();
    let (named, missing) =
        log_lines(&manual, |line| sources.iter().any(|source| source.contains(line)));
    assert!(named > 20, "looked in the wrong place: {named} log lines");
    assert_none(missing);
}

// ── the tree ──

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => format!("cannot read {}: {error}", path.display()),
    }
}

/// The files below `folder` that end in `.extension`, in order; none if there is no folder.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|has| has == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn over_sources(rule: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let sources = files(&root().join("src"), "rs");
    assert!(sources.len() > 10, "looked in the wrong place: {} sources", sources.len());
    sources.iter().flat_map(|path| rule(&relative(path), &read(path))).collect()
}

/// Whether `link` leads from `folder` to something inside this tree.
fn is_there(folder: &Path, link: &str) -> bool {
    let target = match link.strip_prefix('/') {
        Some(from_root) => root().join(from_root),
        None => folder.join(link),
    };
    match (target.canonicalize(), root().canonicalize()) {
        (Ok(target), Ok(root)) => target.starts_with(root),
        _ => false,
    }
}

fn assert_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n{}\n", findings.len(), findings.join("\n"));
}

// ── reading Rust ──

/// `source` with every comment and literal written over with spaces; lines stay where they are.
fn blanked(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let opaque = opaque_length(rest, code.chars().next_back());
        let (taken, left) = rest.split_at(opaque.unwrap_or(first.len_utf8()));
        match opaque {
            Some(_) => code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push_str(taken),
        }
        rest = left;
    }
    code
}

/// The length in bytes of the comment or literal that `rest` begins with.
fn opaque_length(rest: &str, before: Option<char>) -> Option<usize> {
    let to_the_end = rest.len();
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(to_the_end));
    }
    if rest.starts_with("/*") {
        return Some(block_comment_length(rest));
    }
    if let Some(text) = rest.strip_prefix('"') {
        return Some(1 + unescaped(text, '"').unwrap_or(text.len()));
    }
    if let Some(text) = rest.strip_prefix('\'') {
        let mut inside = text.chars();
        // `'a'` and `'\n'` are characters, `'a` is a lifetime.
        let is_character = inside.next() == Some('\\') || inside.next() == Some('\'');
        return is_character.then(|| 1 + unescaped(text, '\'').unwrap_or(text.len()));
    }
    let raw = ["r", "br", "cr"].into_iter().find_map(|mark| rest.strip_prefix(mark));
    let hashes = raw.filter(|_| !before.is_some_and(is_word))?;
    let opening = hashes.trim_start_matches('#').strip_prefix('"')?;
    let closing = format!("\"{}", "#".repeat(hashes.len() - opening.len() - 1));
    let opened = to_the_end - opening.len();
    Some(opening.find(&closing).map_or(to_the_end, |at| opened + at + closing.len()))
}

/// Where `text` goes on behind the next `end` that no backslash stands before.
fn unescaped(text: &str, end: char) -> Option<usize> {
    let mut is_escaped = false;
    let at = text.find(|c| {
        let found = c == end && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        found
    })?;
    Some(at + end.len_utf8())
}

/// Block comments nest.
fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The word that `text` begins with.
fn word(text: &str) -> &str {
    text.split(|c| !is_word(c)).next().unwrap_or_default()
}

/// Where `needle` stands in `text` as a whole word: its end may be inside another only if it
/// ends in something that is not of a word itself.
fn finds<'a>(text: &'a str, needle: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.match_indices(needle).filter_map(move |(at, _)| {
        let (before, found) = text.split_at(at);
        let after = found.strip_prefix(needle)?;
        let joined = needle.ends_with(is_word) && after.starts_with(is_word);
        (!before.ends_with(is_word) && !joined).then_some((before, after))
    })
}

/// The line, from 1, on which what follows `before` stands.
fn line(before: &str) -> usize {
    before.matches('\n').count() + 1
}

/// The inside of the `open`…`close` that `text` begins with.
fn balanced(text: &str, open: char, close: char) -> Option<&str> {
    let mut depth = 0_usize;
    let end = text.find(|c| {
        depth += usize::from(c == open);
        depth = depth.saturating_sub(usize::from(c == close));
        depth == 0
    })?;
    text.get(open.len_utf8()..end)
}

/// Where the tests at the end of a file begin, in bytes.
fn tests_begin(source: &str) -> usize {
    let marks = source.match_indices("#[cfg(test)]\n").filter(|&(at, mark)| {
        let starts_line = source.get(..at).is_none_or(|b| b.is_empty() || b.ends_with('\n'));
        let next = source.get(at + mark.len()..).unwrap_or_default();
        let item = next.lines().find(|line| !line.starts_with("#["));
        starts_line && item.is_some_and(|item| item.starts_with("mod tests {"))
    });
    marks.map(|(at, _)| at).next().unwrap_or(source.len())
}

// ── the rules ──

fn floor(room: &str) -> Option<u8> {
    if VOCABULARY.contains(&room) {
        return Some(0);
    }
    ROOMS.iter().find(|(name, _)| *name == room).map(|&(_, floor)| floor)
}

/// Modules of `path` below the crate's root: `src/http/host.rs` is `["http", "host"]`.
fn modules(path: &str) -> Vec<&str> {
    let path = path.strip_prefix("src/").unwrap_or(path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.strip_suffix("/mod").unwrap_or(path).split('/').collect()
}

fn imports(path: &str, code: &str) -> Vec<String> {
    let modules = modules(path);
    let Some(&from) = modules.first().filter(|&&room| room != "lib") else {
        return Vec::new();
    };
    let Some(from_floor) = floor(from) else {
        return vec![format!(
            "{path}:1: `{from}` is in no table: give it a floor in tests/tidy.rs"
        )];
    };
    let mut findings = Vec::new();
    for (line, to) in from_the_root(code, modules.len()) {
        let is_fine = match floor(to) {
            Some(_) if to == from || VOCABULARY.contains(&to) => true,
            Some(to_floor) => to_floor < from_floor && !VOCABULARY.contains(&from),
            None => false,
        };
        if !is_fine {
            findings.push(format!("{path}:{line}: `{from}` may not import from `{to}`"));
        }
    }
    findings
}

/// The rooms that a file names, with the line of each; `depth` is how deep the file's own
/// module lies. Through `crate::` or through as many `super::` as lead to the root.
fn from_the_root(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let tests = tests_begin(code);
    let mut named = Vec::new();
    for (before, after) in finds(code, "crate::") {
        named.extend(firsts(after).into_iter().map(|room| (line(before), room)));
    }
    for (before, after) in finds(code, "super::").filter(|(b, _)| !b.ends_with("super::")) {
        let beyond = after.trim_start_matches("super::");
        let steps = 1 + (after.len() - beyond.len()) / "super::".len();
        let inside_tests = usize::from(before.len() > tests);
        if steps >= depth + inside_tests {
            named.extend(firsts(beyond).into_iter().map(|room| (line(before), room)));
        }
    }
    named
}

/// What stands first in each path of `a::b` or `{a::b, c::{d, e}}`; `*` for a glob.
fn firsts(after: &str) -> Vec<&str> {
    let Some(group) = balanced(after, '{', '}').filter(|_| after.starts_with('{')) else {
        return vec![if after.starts_with('*') { "*" } else { word(after) }];
    };
    parts(group).into_iter().map(|path| if path == "*" { path } else { word(path) }).collect()
}

/// Circles of imports among the modules of one folder, a subfolder counting as one module. Between
/// a module and those inside it both directions are fine: they are one thing. Folders of `known`
/// must have a circle. The tests at the end of a file do not count.
fn circles(sources: &[(String, String)], known: &[&str]) -> Vec<String> {
    let modules: BTreeMap<Vec<&str>, &str> = sources
        .iter()
        .map(|(path, code)| (modules(path), code.get(..tests_begin(code)).unwrap_or(code)))
        .filter(|(module, _)| module.last() != Some(&"tests") && *module != ["lib"])
        .collect();
    let mut edges: BTreeMap<Vec<&str>, BTreeSet<Vec<&str>>> = BTreeMap::new();
    for (from, code) in &modules {
        for to in named_modules(from, code, &modules) {
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let (Some(near), Some(far)) = (from.get(..=shared), to.get(..=shared)) else {
                continue; // one lies inside the other
            };
            if shared > 0 {
                edges.entry(near.to_vec()).or_default().insert(far.to_vec());
            }
        }
    }
    let mut findings = Vec::new();
    let mut circular = BTreeSet::new();
    for from in edges.keys() {
        let mut reached = BTreeSet::new();
        reach(from, &edges, &mut reached);
        let folder = from.get(..from.len() - 1).unwrap_or_default().join("::");
        if reached.contains(from) {
            if !known.contains(&folder.as_str()) {
                findings.push(format!("`{}` imports itself by a circle", from.join("::")));
            }
            circular.insert(folder);
        }
    }
    let mended = known.iter().filter(|folder| !circular.contains(**folder));
    findings.extend(mended.map(|it| format!("`{it}` has no circle left: take it off `CIRCLES`")));
    findings
}

/// All that can be reached from a module.
fn reach<'a>(
    from: &[&'a str],
    edges: &BTreeMap<Vec<&'a str>, BTreeSet<Vec<&'a str>>>,
    reached: &mut BTreeSet<Vec<&'a str>>,
) {
    for to in edges.get(from).into_iter().flatten() {
        if reached.insert(to.clone()) {
            reach(to, edges, reached);
        }
    }
}

/// The modules that a module names: by `crate::`, `super::` and `self::`, and those inside it by
/// their own name.
fn named_modules<'a>(
    from: &[&'a str],
    code: &'a str,
    modules: &BTreeMap<Vec<&'a str>, &'a str>,
) -> BTreeSet<Vec<&'a str>> {
    let mut named: Vec<Vec<&str>> = Vec::new();
    let mut add = |base: &[&'a str], after: &'a str| {
        named.extend(paths(after).into_iter().map(|path| [base, &path].concat()));
    };
    for (_, after) in finds(code, "crate::") {
        add(&[], after);
    }
    for (_, after) in finds(code, "self::") {
        add(from, after);
    }
    for (_, after) in finds(code, "super::").filter(|(before, _)| !before.ends_with("super::")) {
        let beyond = after.trim_start_matches("super::");
        let steps = 1 + (after.len() - beyond.len()) / "super::".len();
        add(from.get(..from.len().saturating_sub(steps)).unwrap_or_default(), beyond);
    }
    for inside in modules.keys().filter(|module| module.split_last().is_some_and(|it| it.1 == from))
    {
        let name = inside.last().unwrap_or(&"");
        let path = format!("{name}::");
        for (before, after) in code.match_indices(&path).map(|(at, path)| {
            (code.get(..at).unwrap_or_default(), code.get(at + path.len()..).unwrap_or_default())
        }) {
            if !before.ends_with(is_word) && !before.ends_with("::") {
                add(inside, after);
            }
        }
    }
    let module = |mut path: Vec<&'a str>| {
        while !path.is_empty() && !modules.contains_key(&path) {
            path.pop();
        }
        path
    };
    named.into_iter().map(module).collect()
}

/// Every path of `a::b` or `a::{b, c::{d, e}}`, by its segments.
fn paths(text: &str) -> Vec<Vec<&str>> {
    let mut path = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if rest.starts_with('{') {
            let group = balanced(rest, '{', '}').unwrap_or_default();
            let inside = parts(group).into_iter().flat_map(paths);
            return inside.map(|behind| [path.as_slice(), &behind].concat()).collect();
        }
        let segment = word(rest);
        path.push(segment);
        let behind = rest.get(segment.len()..).unwrap_or_default();
        match behind.strip_prefix("::").filter(|_| !segment.is_empty()) {
            Some(behind) => rest = behind,
            None => return vec![path],
        }
    }
}

/// The parts of a group that commas separate.
fn parts(group: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = group.split(|c| {
        depth += usize::from(c == '{');
        depth = depth.saturating_sub(usize::from(c == '}'));
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn length(path: &str, source: &str) -> Vec<String> {
    if path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let product = source.get(..tests_begin(source)).unwrap_or(source);
    let lines = product.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines without tests, more than {FILE_LINES_MAX}")]
}

/// The names of metrics, and the words that a `match` or a row gives for a code or a label.
fn operator_names(source: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (before, literal) in source.split('"').zip(source.split('"').skip(1)) {
        // In a row of a table, a code stands behind its status.
        let is_row = before
            .trim_end()
            .strip_suffix(',')
            .is_some_and(|row| row.ends_with(|c: char| c.is_ascii_digit()));
        let is_code = before.ends_with("=> ") || before.ends_with("=> Some(") || is_row;
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if (is_code || literal.starts_with("lb_")) && literal.chars().all(is_word) {
            names.insert(literal);
        }
    }
    names
}

fn undocumented(path: &str, names: &BTreeSet<&str>, manual: &str) -> Vec<String> {
    let missing = names.iter().filter(|name| finds(manual, name).next().is_none());
    missing.map(|name| format!("{path}: docs/OPERATIONS.md does not have `{name}`")).collect()
}

/// `source` with literals that go on in the next line joined.
fn joined(source: &str) -> String {
    let mut lines = source.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

/// The number of log lines that `manual` names in backticks, and those that do not exist. A log line
/// begins with one of [`LOG_WORDS`]; it is compared up to its first value.
fn log_lines(manual: &str, exists: impl Fn(&str) -> bool) -> (usize, Vec<String>) {
    let fenced = manual.split("```").step_by(2).collect::<String>().replace('\n', " ");
    let spans = fenced.split('`').skip(1).step_by(2);
    let lines = spans.filter(|span| LOG_WORDS.iter().any(|word| span.starts_with(word)));
    let constant = |span: &'_ str| span.split([':', '=', '…']).next().unwrap_or_default().len();
    let lines: BTreeSet<&str> =
        lines.filter_map(|span| span.get(..constant(span))).map(str::trim).collect();
    let missing = lines.iter().filter(|line| !exists(line));
    let missing = missing.map(|line| format!("docs/OPERATIONS.md: there is no log line `{line}`"));
    (lines.len(), missing.collect())
}

fn pages(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines <= ARCHITECTURE_LINES_MAX {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines, more than {ARCHITECTURE_LINES_MAX}: shorten it")]
}

fn allows(path: &str, code: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (at, mark) in code.match_indices('#') {
        let (before, attribute) = code.split_at(at);
        let attribute = attribute.strip_prefix(mark).unwrap_or_default();
        let attribute = attribute.strip_prefix('!').unwrap_or(attribute);
        let inside = balanced(attribute, '[', ']').filter(|_| attribute.starts_with('['));
        if finds(inside.unwrap_or_default(), "allow").next().is_some() {
            findings.push(format!("{path}:{}: `expect` it, with the reason", line(before)));
        }
    }
    findings
}

fn unsafes(path: &str, code: &str, listed: &[(&str, &str)]) -> Vec<String> {
    if listed.iter().any(|(file, reason)| *file == path && !reason.is_empty()) {
        return Vec::new();
    }
    let found = finds(code, "unsafe").map(|(before, _)| line(before));
    found.map(|line| format!("{path}:{line}: `unsafe` in a file without a reason for it")).collect()
}

/// Reads comments and literals, too: they are what is written for readers.
fn phrases(path: &str, text: &str) -> Vec<String> {
    // One space between words, so that a phrase may go over the end of a line, or be a part of a name.
    let (mut words, mut lines) = (String::from(" "), Vec::new());
    for (at, line) in text.to_lowercase().lines().enumerate() {
        for word in
            line.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty())
        {
            words.extend([word, " "]);
            lines.push(at + 1);
        }
    }
    let found = FORBIDDEN.iter().flat_map(|phrase| {
        let here =
            words.match_indices(&format!(" {phrase} ")).map(|(at, _)| at).collect::<Vec<_>>();
        let line =
            |at: usize| lines.get(words.get(..at).map_or(0, |before| before.matches(' ').count()));
        here.into_iter().filter_map(line).map(|line| (*line, *phrase)).collect::<Vec<_>>()
    });
    found.map(|(line, phrase)| format!("{path}:{line}: `{phrase}`: say who does what")).collect()
}

fn clock_reads(path: &str, code: &str) -> Vec<String> {
    if path == "src/clock.rs" {
        return Vec::new();
    }
    let reads = ["Instant::now", "SystemTime::now"].into_iter().flat_map(|read| finds(code, read));
    reads.map(|(before, _)| format!("{path}:{}: time is an argument", line(before))).collect()
}

/// What would compile in the core although it has no business there: the sockets of the
/// standard library, and code that is there only when the feature `server` is.
fn impurities(path: &str, code: &str) -> Vec<String> {
    let room = modules(path).first().copied().unwrap_or_default();
    if floor(room).is_none_or(|floor| floor > CORE_FLOOR_MAX) {
        return Vec::new();
    }
    let words = ["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener", "feature"];
    let found = words.into_iter().flat_map(|word| finds(code, word).map(move |at| (word, at.0)));
    found.map(|(word, b)| format!("{path}:{}: `{word}` in the core", line(b))).collect()
}

/// Locks of the standard library. `sync` may wrap what it likes.
fn std_locks(path: &str, code: &str) -> Vec<String> {
    const LOCKS: [&str; 5] = ["Mutex", "MutexGuard", "RwLock", "Condvar", "PoisonError"];
    if path == "src/sync.rs" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (before, after) in finds(code, "std::sync::") {
        let locks = firsts(after).into_iter().filter(|name| LOCKS.contains(name));
        findings.extend(locks.map(|name| {
            format!("{path}:{}: `{name}` of std: use parking_lot, or `sync`", line(before))
        }));
    }
    findings
}

fn hooks(path: &str, code: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !path.starts_with("src/proxy/") {
        return findings;
    }
    for (before, after) in finds(code, "ProxyHttp for") {
        let Some((head, block)) = after.find('{').map(|at| after.split_at(at)) else { continue };
        let inside = balanced(block, '{', '}').unwrap_or(block);
        let above = line(before) + head.matches('\n').count();
        let mut past_last = 0;
        for (before, after) in finds(inside, "fn") {
            let Some(at) = after.find('{').filter(|_| before.len() >= past_last) else { continue };
            let body = after.get(at..).and_then(|body| balanced(body, '{', '}')).unwrap_or(after);
            // A function inside of a hook is a part of the hook.
            past_last = before.len() + at + body.len();
            let lines = body.matches('\n').count().saturating_sub(1);
            if lines > HOOK_LINES_MAX {
                let line = above + line(before) - 1;
                let name = word(after.trim_start());
                findings.push(format!("{path}:{line}: the hook `{name}` has {lines} lines"));
            }
        }
    }
    findings
}

fn broken_links(path: &str, text: &str, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let is_broken = |target: &str| {
        let file = target.split('#').next().unwrap_or_default();
        !file.is_empty() && !is_there(file)
    };
    let broken = link_targets(text).into_iter().filter(|(_, target)| is_broken(target));
    broken.map(|(line, target)| format!("{path}:{line}: `{target}` leads nowhere")).collect()
}

/// Links to a heading that does not exist. `page` reads another document.
fn dead_anchors(path: &str, text: &str, page: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let is_dead = |target: &str| match target.split_once('#') {
        None => false,
        Some(("", anchor)) => !anchors(text).contains(anchor),
        Some((file, anchor)) => page(file).is_some_and(|page| !anchors(&page).contains(anchor)),
    };
    let dead = link_targets(text).into_iter().filter(|(_, target)| is_dead(target));
    dead.map(|(line, target)| format!("{path}:{line}: `{target}`: no such heading")).collect()
}

/// The lines of a document that are not code, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut is_prose = |line: &str| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| is_prose(line))
        .map(|(at, line)| (at + 1, line))
        .collect()
}

/// The links of a document to this tree, with their lines.
fn link_targets(text: &str) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    for (at, line) in prose(text) {
        let prose: String = line.split('`').step_by(2).collect();
        let inline = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let defined = prose.starts_with('[').then(|| prose.split_once("]: ")).flatten();
        for target in inline.chain(defined.map(|(_, target)| target)) {
            let target = target.split_whitespace().next().unwrap_or_default();
            let target = target.trim_matches(['<', '>']);
            if !target.contains("://") && !target.starts_with("mailto:") {
                targets.push((at, target.to_owned()));
            }
        }
    }
    targets
}

/// The anchors that GitHub gives to the headings of a document.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let title = title.trim().to_lowercase().replace(' ', "-");
        let anchor: String =
            title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
        // A heading that repeats gets a number.
        let again = (1..).map(|count| format!("{anchor}-{count}"));
        let mut names = std::iter::once(anchor.clone()).chain(again);
        anchors.extend(names.find(|name| !anchors.contains(name)));
    }
    anchors
}

/// The names of the tests in `code`: functions with an attribute that ends in `test`.
fn tests_of(code: &str) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in code.lines() {
        is_test |= line.contains("#[") && (line.contains("test]") || line.contains("test("));
        if let Some((_, after)) = finds(line, "fn").next() {
            if is_test {
                tests.insert(word(after.trim_start()).to_owned());
            }
            is_test = false;
        }
    }
    tests
}

/// Each `test:` in `text` is followed by the names of tests in backticks; those that are none.
fn missing_tests(path: &str, text: &str, is_test: impl Fn(&str) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    for (before, after) in finds(text, "test:").chain(finds(text, "tests:")) {
        let mut rest = after;
        let mut names = Vec::new();
        while let Some((name, behind)) = rest
            .trim_start_matches([' ', '\n', ',', '*', '_'])
            .trim_start_matches("and ")
            .trim_start()
            .strip_prefix('`')
            .and_then(|name| name.split_once('`'))
        {
            names.push(name);
            rest = behind;
        }
        let at = line(before);
        if names.is_empty() {
            findings.push(format!("{path}:{at}: `test:` names no test"));
        }
        let missing = names.into_iter().filter(|name| !is_test(name));
        findings.extend(missing.map(|name| format!("{path}:{at}: there is no test `{name}`")));
    }
    findings
}

// ── each rule can fail ──

#[test]
fn comments_and_literals_are_blanked_and_lines_stay() {
    let source =
        "a // b\n/* c /* d */ e */ f \"g \\\" h\" i 'j' '\\'' k 'l r#\"m \" n\"# o br#\"p\"\"#";
    let words: Vec<String> = blanked(source).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "f", "i", "k", "'l", "o"]);
    assert_eq!(blanked("\"a\nb\"\nc").matches('\n').count(), 2);
}

#[test]
fn a_forbidden_phrase_is_found_in_any_case_and_only_as_words() {
    let text = "// fine\n/// Nobody knows\nlet somany = \"so many\"; // for\n// want of it\nfn nobody_waits()";
    let expected = [
        "src/tls/x.rs:3: `for want of`: say who does what",
        "src/tls/x.rs:2: `nobody`: say who does what",
        "src/tls/x.rs:5: `nobody`: say who does what",
        "src/tls/x.rs:3: `so many`: say who does what",
    ];
    assert_eq!(phrases("src/tls/x.rs", text), expected);
}

#[test]
fn an_import_from_the_same_or_a_higher_floor_is_found() {
    let up = imports("src/policy/breaker.rs", "\nuse crate::runtime::Backend;");
    assert_eq!(up, ["src/policy/breaker.rs:2: `policy` may not import from `runtime`"]);
    assert_eq!(imports("src/policy/retry.rs", "use crate::http::method;").len(), 1);
    assert_eq!(imports("src/http/via.rs", "use crate::policy::retry;").len(), 1);
    assert_eq!(imports("src/probe/mod.rs", "use crate::admin;").len(), 1);
    assert_eq!(imports("src/downstream/mod.rs", "use crate::proxy;").len(), 1);
    assert_eq!(imports("src/time.rs", "use crate::http;").len(), 1);
    assert_eq!(imports("src/runtime/pool.rs", "fn f() { crate::exchange::g() }").len(), 1);
}

#[test]
fn an_import_from_a_lower_floor_is_fine() {
    assert_none(imports("src/exchange/mod.rs", "use crate::{policy::retry, http, time::*};"));
    assert_none(imports("src/policy/breaker.rs", "use crate::time::Timestamp;\nuse super::x;"));
    assert_none(imports("src/policy/breaker.rs", "use crate::policy::backoff;"));
    assert_none(imports("src/main.rs", "use weir::supervisor;"));
    assert_none(imports("src/lib.rs", "pub use crate::worker;"));
    assert_none(imports("src/http/mod.rs", "use ::http::Method; use other_crate::worker;"));
}

#[test]
fn an_import_hidden_in_a_group_is_found() {
    let code = "use crate::{\n    config::{self, limits},\n    exchange::Exchange,\n};";
    let found = imports("src/runtime/mod.rs", code);
    assert_eq!(found, ["src/runtime/mod.rs:1: `runtime` may not import from `exchange`"]);
}

#[test]
fn an_import_through_super_is_found() {
    assert_eq!(imports("src/time.rs", "use super::http;").len(), 1);
    assert_eq!(imports("src/http/mod.rs", "use super::policy;").len(), 1);
    assert_eq!(imports("src/http/host.rs", "use super::super::policy;").len(), 1);
    assert_none(imports("src/http/host.rs", "use super::path;"));
}

#[test]
fn the_tests_of_a_file_are_one_module_deeper() {
    let head = "#[cfg(test)]\nmod tests {\n";
    assert_none(imports("src/http/mod.rs", &format!("{head}use super::via;")));
    assert_eq!(imports("src/http/mod.rs", &format!("{head}use super::super::policy;")).len(), 1);
}

#[test]
fn a_glob_of_the_whole_house_is_found() {
    assert_eq!(imports("src/policy/mod.rs", "use crate::*;").len(), 1);
    assert_eq!(imports("src/policy/mod.rs", "use crate::{time, *};").len(), 1);
}

#[test]
fn a_room_that_is_in_no_table_is_found() {
    assert_eq!(imports("src/util.rs", "").len(), 1);
    assert_eq!(imports("src/worker.rs", "use crate::util::x;").len(), 1);
}

/// The findings about files of these names and texts.
fn circles_of(files: &[(&str, &str)], known: &[&str]) -> Vec<String> {
    let owned = |(path, code): &(&str, &str)| ((*path).to_owned(), (*code).to_owned());
    circles(&files.iter().map(owned).collect::<Vec<_>>(), known)
}

#[test]
fn a_circle_of_imports_is_found_however_it_is_written() {
    let listener = ("src/proxy/listener.rs", "use super::http2::{self, Stream};");
    let both = [
        "`proxy::http2` imports itself by a circle",
        "`proxy::listener` imports itself by a circle",
    ];
    for back in [
        "use super::listener::Listener;",
        "use crate::proxy::listener;",
        "use super::{tracker, listener::{Listener, Limits}};",
        "fn f() { super::listener::serve() }",
    ] {
        assert_eq!(circles_of(&[listener, ("src/proxy/http2.rs", back)], &[]), both, "{back}");
        let inside = ("src/proxy/http2/stream.rs", "use crate::proxy::listener;");
        assert_eq!(circles_of(&[listener, ("src/proxy/http2/mod.rs", ""), inside], &[]), both);
    }
}

#[test]
fn a_circle_by_way_of_a_third_module_is_found() {
    let files = [
        ("src/proxy/a.rs", "use super::b;"),
        ("src/proxy/b.rs", "use super::c;"),
        ("src/proxy/c.rs", "use super::a;"),
        ("src/proxy/d.rs", "use super::a;"),
    ];
    assert_eq!(circles_of(&files, &[]).len(), 3);
}

#[test]
fn a_module_and_those_inside_it_may_import_each_other() {
    assert_none(circles_of(
        &[
            ("src/proxy/mod.rs", "mod grpc;\nfn f() { grpc::g(); ::http::h() }"),
            ("src/proxy/grpc.rs", "use super::Proxy;\nuse crate::http;"),
            ("src/http/mod.rs", "mod host;\nuse self::host::Host;"),
            (
                "src/http/host.rs",
                "fn f() {}\n#[cfg(test)]\nmod tests {\nuse super::super::path;\n}",
            ),
            ("src/http/path.rs", "use super::host;"),
        ],
        &[],
    ));
}

#[test]
fn a_folder_without_a_circle_is_taken_off_the_list() {
    let files = [("src/proxy/a.rs", "use super::b;"), ("src/proxy/b.rs", "use super::a;")];
    assert_none(circles_of(&files, &["proxy"]));
    let found = circles_of(&files[..1], &["proxy"]);
    assert_eq!(found, ["`proxy` has no circle left: take it off `CIRCLES`"]);
}

#[test]
fn a_file_that_is_too_long_is_found() {
    assert_none(length("src/a.rs", &"x\n".repeat(400)));
    assert_eq!(length("src/a.rs", &"x\n".repeat(401)).len(), 1);
    assert_none(length("src/a/tests.rs", &"x\n".repeat(401)));
}

#[test]
fn a_metric_or_a_code_that_the_manual_lacks_is_found() {
    let source = "A => \"gone\", B => Some(\"kept\"), f(\"lb_x\"), C => \"A text\", g(\"other\"), (404,\n\"row\")";
    let names = operator_names(source);
    assert_eq!(names.iter().copied().collect::<Vec<_>>(), ["gone", "kept", "lb_x", "row"]);
    let found = undocumented("src/a.rs", &names, "`kept` `row` `lb_x{pool}` `gone_by`");
    assert_eq!(found, ["src/a.rs: docs/OPERATIONS.md does not have `gone`"]);
}

#[test]
fn a_log_line_that_does_not_exist_is_found() {
    let manual =
        "`worker died` `worker\nkilled: pid=…` `weir run`\n```\nworker left\n```\n`worker left`";
    let source = joined("warn!(\"worker died\");\nwarn!(\"worker \\\n    killed: pid={}\")");
    let (named, missing) = log_lines(manual, |line| source.contains(line));
    assert_eq!(
        (named, missing.as_slice()),
        (3, ["docs/OPERATIONS.md: there is no log line `worker left`".to_owned()].as_slice())
    );
}

#[test]
fn an_architecture_of_more_than_two_pages_is_found() {
    assert_none(pages("A.md", &"x\n".repeat(150)));
    assert_eq!(pages("A.md", &"x\n".repeat(151)), ["A.md: 151 lines, more than 150: shorten it"]);
}

#[test]
fn tests_at_the_end_do_not_count_and_other_test_code_does() {
    let long = "x\n".repeat(399);
    let tests = format!("{long}#[cfg(test)]\n#[expect(a)]\nmod tests {{\n{long}}}\n");
    assert_none(length("src/a.rs", &tests));
    let helper = format!("{long}#[cfg(test)]\nmod helper {{\n}}\n");
    assert_eq!(length("src/a.rs", &helper).len(), 1);
    let beside = format!("#[cfg(test)]\nmod tests;\n{long}");
    assert_eq!(length("src/a.rs", &beside).len(), 1, "tests in a file of their own end nothing");
}

#[test]
fn an_allowed_lint_is_found() {
    assert_eq!(allows("src/a.rs", "\n#[allow(x)]"), ["src/a.rs:2: `expect` it, with the reason"]);
    assert_eq!(allows("src/a.rs", "#![allow(x)]").len(), 1);
    assert_eq!(allows("src/a.rs", "#[cfg_attr(loom, allow(x))]").len(), 1);
    assert_none(allows("src/a.rs", "#[expect(x)] fn f() { limiter.allow(1); allow(2) }"));
    assert_none(allows("src/a.rs", &blanked("#[doc = \"allow\"] // #[allow(x)]")));
}

#[test]
fn unsafe_code_without_a_reason_is_found() {
    assert_eq!(unsafes("src/a.rs", "\n\nunsafe { f() }", &[]).len(), 1);
    assert_eq!(unsafes("src/a.rs", "unsafe { f() }", &[("src/b.rs", "sockets")]).len(), 1);
    assert_eq!(unsafes("src/a.rs", "unsafe { f() }", &[("src/a.rs", "")]).len(), 1);
    assert_none(unsafes("src/a.rs", "unsafe { f() }", &[("src/a.rs", "sockets")]));
    assert_none(unsafes("src/a.rs", "#[expect(unsafe_code)]", &[]));
}

#[test]
fn a_look_at_the_clock_is_found() {
    assert_eq!(clock_reads("src/time.rs", "std::time::Instant::now()").len(), 1);
    assert_eq!(clock_reads("src/log.rs", "map(SystemTime::now)").len(), 1);
    assert_none(clock_reads("src/clock.rs", "Instant::now()"));
    assert_none(clock_reads("src/log.rs", "MyInstant::now()"));
}

#[test]
fn a_socket_or_a_feature_in_the_core_is_found() {
    assert_eq!(impurities("src/exchange/mod.rs", "use std::net::TcpStream;").len(), 1);
    let gated = blanked("#[cfg(feature = \"server\")]");
    assert_eq!(impurities("src/sync.rs", &gated).len(), 1);
    assert_none(impurities("src/policy/mod.rs", "use std::net::IpAddr;"));
    assert_none(impurities("src/probe/tcp.rs", "use std::net::TcpStream;"));
    assert_none(impurities("src/lib.rs", &gated));
}

#[test]
fn a_lock_of_the_standard_library_is_found() {
    let found = std_locks("src/a.rs", "use std::sync::{Arc, Mutex};\nx: std::sync::RwLock<u8>");
    let expected = [
        "src/a.rs:1: `Mutex` of std: use parking_lot, or `sync`",
        "src/a.rs:2: `RwLock` of std: use parking_lot, or `sync`",
    ];
    assert_eq!(found, expected);
    assert_none(std_locks("src/a.rs", "use std::sync::{Arc, OnceLock}; use parking_lot::Mutex;"));
    assert_none(std_locks("src/sync.rs", "std::sync::PoisonError"));
}

#[test]
fn a_long_hook_is_found() {
    let implemented = |lines: usize| {
        let body = "        x {}\n".repeat(lines);
        format!(
            "\nimpl<T> ProxyHttp for Proxy<T> {{\n    type CTX = Exchange;\n\n    async fn short() \
             {{}}\n    fn long(\n        &self,\n    ) -> X {{\n{body}    }}\n}}\n"
        )
    };
    assert_none(hooks("src/proxy/mod.rs", &implemented(15)));
    let found = hooks("src/proxy/mod.rs", &implemented(16));
    assert_eq!(found, ["src/proxy/mod.rs:6: the hook `long` has 16 lines"]);
    assert_none(hooks("src/admin/mod.rs", &implemented(16)));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let found = |text: &str| broken_links("README.md", text, |link| link == "LICENSE");
    assert_eq!(found("\nsee [a](gone.md)"), ["README.md:2: `gone.md` leads nowhere"]);
    assert_eq!(found("[a](LICENSE) and ![b](gone.png \"title\")").len(), 1);
    assert_eq!(found("[`a`](gone.md#part)").len(), 1);
    assert_eq!(found("[a]: gone.md").len(), 1);
    assert_none(found("[a](LICENSE#part) [b](https://example.com/x) [c](#part) [d](mailto:a@b)"));
    assert_none(found("`[a](gone.md)`\n```\n[a](gone.md)\n```\n"));
}

#[test]
fn a_link_to_a_heading_that_does_not_exist_is_found() {
    let page =
        |file: &str| (file == "B.md").then(|| "# Of `a`, and b\n## Twice\n## Twice".to_owned());
    let found = |text: &str| dead_anchors("A.md", text, page);
    assert_eq!(found("# One\n[a](#two)"), ["A.md:2: `#two`: no such heading"]);
    assert_eq!(found("[a](B.md#of-a)").len(), 1);
    assert_eq!(found("```\n# One\n```\n[a](#one)").len(), 1);
    assert_none(found("# One\n[a](#one) [b](B.md#of-a-and-b) [c](B.md#twice-1) [d](gone.rs#L1)"));
}

#[test]
fn a_link_out_of_the_tree_leads_nowhere() {
    assert!(is_there(root(), "Cargo.toml"));
    assert!(is_there(&root().join("src"), "../Cargo.toml"));
    assert!(is_there(&root().join("src"), "/Cargo.toml"));
    assert!(!is_there(root(), ".."));
    assert!(!is_there(root(), "gone.md"));
}

#[test]
fn a_test_that_does_not_exist_is_found() {
    let found = |text: &str| missing_tests("A.md", text, |name| name == "one" || name == "two");
    assert_eq!(found("\n(test: `three`)"), ["A.md:2: there is no test `three`"]);
    assert_eq!(found("test: `one`, `four` and\n`two`").len(), 1);
    assert_eq!(found("Held by test: nothing").len(), 1);
    assert_none(found("a (test: `one`); b (tests: `one`, `two`); `latest: x`"));
}

#[test]
fn only_functions_marked_as_tests_are_tests() {
    let code = "#[test] fn a() {}\n#[tokio::test]\n#[expect(x)]\nasync fn b() {}\nfn c() {}\n";
    assert_eq!(tests_of(code).into_iter().collect::<Vec<_>>(), ["a", "b"]);
}
