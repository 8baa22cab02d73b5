//! docs/HTTP.md is generated from the cases that the test suite sends, so it documents tested behaviour.
//!
//! `UPDATE=1 cargo test --no-default-features --test http` regenerates it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a table that cannot be read fails the test"
)]

mod details;
mod frames;
mod table;

use std::fs;
use std::path::Path;

use table::{Case, Line};

const REQUESTS: &str = include_str!("requests.txt");
const RESPONSES: &str = include_str!("answers.txt");
const HTTP2: &str = include_str!("http2.txt");
const HTTP2_RESPONSES: &str = include_str!("http2_answers.txt");

#[test]
fn the_http_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/HTTP.md");
    let is = fs::read_to_string(&path).unwrap_or_default();
    let fresh = within(&is, "requests", &document(REQUESTS, does));
    let fresh = within(&fresh, "http2", &document(HTTP2, does_with_frames));
    let fresh = within(&fresh, "responses", &document(RESPONSES, does_with_a_response));
    let responses = document(HTTP2_RESPONSES, does_with_response_frames);
    let fresh = within(&fresh, "http2 responses", &responses);
    let fresh = within(&fresh, "details", &details::table());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, fresh).expect("docs/HTTP.md can be written");
        return;
    }
    assert!(is == fresh, "docs/HTTP.md is stale: UPDATE=1 cargo test --test http");
}

#[test]
fn there_are_at_least_a_hundred_and_fifty_cases_and_no_two_are_the_same() {
    let cases = table::cases(REQUESTS);
    assert!(cases.len() >= 150, "{}", cases.len());
    for (at, case) in cases.iter().enumerate() {
        let same = |other: &&Case| {
            other.bytes == case.bytes
                || (&other.section, &other.what) == (&case.section, &case.what)
        };
        let twin = cases.iter().take(at).find(same);
        assert!(twin.is_none(), "{}: {} is {:?} again", case.section, case.what, twin);
    }
}

#[test]
fn there_are_at_least_a_hundred_and_fifty_cases_of_http_2_and_no_two_are_the_same() {
    let cases = table::cases(HTTP2);
    assert!(cases.len() >= 150, "{}", cases.len());
    for (at, case) in cases.iter().enumerate() {
        let sent = frames::frames(case).parts;
        let same = |other: &&Case| {
            let is_elsewhere = case.has("plaintext") != other.has("plaintext");
            (frames::frames(other).parts == sent && !is_elsewhere)
                || (&other.section, &other.what) == (&case.section, &case.what)
        };
        let twin = cases.iter().take(at).find(same);
        assert!(twin.is_none(), "{}: {} is {:?} again", case.section, case.what, twin);
    }
}

/// `text` with the part between the marks of `name` replaced.
fn within(text: &str, name: &str, part: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no {end}"));
    format!("{before}{begin}{part}{end}{after}")
}

fn document(text: &str, does: fn(&Case) -> String) -> String {
    let mut document = String::new();
    let mut in_table = false;
    for line in table::lines(text) {
        match line {
            Line::Section(title) => {
                document.push_str(&format!("\n## {title}\n\n"));
                in_table = false;
            }
            Line::Prose(prose) => document.push_str(&format!("{prose}\n")),
            Line::Case(case) => {
                if !in_table {
                    document.push_str("\n| Input | What Weir does | Clause |\n|---|---|---|\n");
                }
                in_table = true;
                let what = case.what.replace('|', "\\|");
                document.push_str(&format!("| {what} | {} | {} |\n", does(&case), clause(&case)));
            }
        }
    }
    document
}

/// The text for what Weir does with a request.
fn does(case: &Case) -> String {
    let statuses = case.statuses();
    let (passed, refused): (Vec<u16>, Vec<u16>) =
        statuses.iter().partition(|status| **status == 200);
    let passed = match passed.len() {
        0 => "",
        1 => "forwards it",
        2 => "forwards both",
        _ => panic!("no text for this many requests: {case:?}"),
    };
    let passed = match (passed, refused.is_empty()) {
        ("forwards it", false) => "forwards the first",
        (other, _) => other,
    };
    let refused = match (refused.first(), case.has("cut")) {
        (None, _) => String::new(),
        (Some(status), false) if case.has("keep") => status.to_string(),
        (Some(status), false) => format!("{status}, closes"),
        (Some(status), true) => format!("{status}, closes, and aborts the backend request"),
    };
    let close = if case.has("close") { ", closes" } else { "" };
    match (passed, refused.as_str()) {
        ("", refused) => refused.to_owned(),
        (passed, "") => format!("{passed}{close}"),
        (passed, refused) => format!("{passed}; {refused}"),
    }
}

/// The text for what Weir does with a client's frames.
fn does_with_frames(case: &Case) -> String {
    let passed = case.statuses().iter().filter(|status| **status == 200).count();
    let mut does: Vec<String> = match passed {
        0 => Vec::new(),
        1 => vec!["forwards it".to_owned()],
        _ => vec!["forwards both".to_owned()],
    };
    let cuts = if case.has("cut") { ", and aborts the backend request" } else { "" };
    let early = if case.has("early") { ", possibly after it was forwarded" } else { "" };
    for word in &case.outcome {
        let word = match word.split_once(':') {
            Some(("reset", code)) => format!("resets the stream: {code}{cuts}{early}"),
            Some((_, code)) => format!("closes the connection: {code}{cuts}"),
            None if word == "closed" => "closes the connection".to_owned(),
            None if word.parse::<u16>().is_ok() && word != "200" => word.clone(),
            None => continue,
        };
        does.push(word);
    }
    does.join("; ")
}

/// The text for what Weir does with a backend's response.
fn does_with_a_response(case: &Case) -> String {
    let status = case.statuses().first().copied();
    let fresh = if case.has("fresh") { ", closes the backend's connection" } else { "" };
    match status {
        None => "502, or aborts a response that has started".to_owned(),
        Some(_) if case.has("cut") => "forwards it, and aborts the response".to_owned(),
        Some(502) => "502, closes the backend's connection".to_owned(),
        Some(_) if is_without_a_body(case) => {
            "forwards it without the body, closes the backend's connection".to_owned()
        }
        Some(_) => format!("forwards it{fresh}"),
    }
}

/// The text for what Weir does with a backend's frames.
fn does_with_response_frames(case: &Case) -> String {
    let does = match case.outcome.first().map_or("", String::as_str) {
        "200" => "forwards it",
        "502" => "502",
        "cut" => "forwards it, and aborts the response",
        "broken" => "502, or aborts a response that has started",
        other => panic!("no text for {other}"),
    };
    does.to_owned()
}

fn clause(case: &Case) -> String {
    format!("RFC {}", case.clause)
}

/// Whether a body came with a response that must not have one.
fn is_without_a_body(case: &Case) -> bool {
    let has_none = case.has("head") || case.has("204") || case.has("304");
    has_none && !case.has("reused")
}
