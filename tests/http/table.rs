//! Reads `requests.txt`, `answers.txt` and `http2.txt`; the comments at their top describe the format.

/// One case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The heading above it.
    pub(crate) section: String,
    /// The result, word by word.
    pub(crate) outcome: Vec<String>,
    /// Section of an RFC.
    pub(crate) clause: String,
    /// A description of the input.
    pub(crate) what: String,
    /// The input, escaped.
    pub(crate) text: String,
    /// The input.
    pub(crate) bytes: Vec<u8>,
}

impl Case {
    /// The statuses in the result.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        self.outcome.iter().filter_map(|word| word.parse().ok()).collect()
    }

    /// Whether the result contains a word.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.outcome.iter().any(|other| other == word)
    }
}

/// A line of a table.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    /// A heading.
    Section(String),
    /// A line of prose.
    Prose(String),
    Case(Case),
}

/// Every line but comments.
#[track_caller]
pub(crate) fn lines(text: &str) -> Vec<Line> {
    let mut section = String::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
            lines.push(Line::Section(section.clone()));
        } else if let Some(prose) = line.strip_prefix("> ") {
            lines.push(Line::Prose(prose.to_owned()));
        } else if !line.is_empty() && !line.starts_with('#') {
            lines.push(Line::Case(case(&section, line)));
        }
    }
    lines
}

/// Every case.
#[track_caller]
pub(crate) fn cases(text: &str) -> Vec<Case> {
    let case = |line| match line {
        Line::Case(case) => Some(case),
        Line::Section(_) | Line::Prose(_) => None,
    };
    lines(text).into_iter().filter_map(case).collect()
}

#[track_caller]
fn case(section: &str, line: &str) -> Case {
    let parts: Vec<&str> = line.splitn(4, " | ").collect();
    let &[outcome, clause, what, bytes] = parts.as_slice() else {
        panic!("four columns, not {}: {line}", parts.len());
    };
    Case {
        section: section.to_owned(),
        outcome: outcome.split(' ').map(str::to_owned).collect(),
        clause: clause.to_owned(),
        what: what.to_owned(),
        text: bytes.to_owned(),
        bytes: unescape(bytes),
    }
}

/// The bytes of an escaped text.
#[track_caller]
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        match next {
            '¶' => bytes.extend(b"\r\n"),
            '\\' => {
                let (byte, length) = escape(rest);
                bytes.push(byte);
                rest = &rest[length..];
            }
            '{' => {
                let (inside, behind) = rest.split_once('}').expect("a repetition is closed");
                let (repeated, count) = inside.rsplit_once('*').expect("a repetition has a *");
                let count = count.parse().expect("a number of repetitions");
                bytes.extend(unescape(repeated).repeat(count));
                rest = behind;
            }
            other => bytes.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

#[track_caller]
fn escape(text: &str) -> (u8, usize) {
    match text.as_bytes().first() {
        Some(b'r') => (b'\r', 1),
        Some(b'n') => (b'\n', 1),
        Some(b't') => (b'\t', 1),
        Some(b'0') => (0, 1),
        Some(b'\\') => (b'\\', 1),
        Some(b'x') => (u8::from_str_radix(&text[1..3], 16).expect("two digits"), 3),
        other => panic!("no escape: {other:?} in {text:?}"),
    }
}
