//! Each line of `tests/http/requests.txt`, sent to the real binary in front of an origin that
//! writes down every byte.

use super::origin::Origin;
use super::table::{self, Case};
use crate::support::TIMEOUT;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::weir::Weir;

const REQUESTS: &str = include_str!("../../http/requests.txt");

fn weir_before(origin: &Origin) -> Weir {
    Weir::start(&format!(
        "limits: {{body: 1000000}}\n\
         pools: [{{name: web, health_check: off, backends: [http://{}]}}]\n",
        origin.address()
    ))
}

#[test]
fn every_request_of_the_table_comes_to_what_the_table_says() {
    let origin = Origin::start();
    let weir = weir_before(&origin);
    let cases = table::cases(REQUESTS);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            origin.forget();
            let problem = sent_at_once(case, &weir, &origin).err()?;
            Some(format!("{}: {}: {problem}", case.section, case.what))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn a_request_that_comes_byte_by_byte_comes_to_the_same() {
    let origin = Origin::start();
    let weir = weir_before(&origin);
    let cases = table::cases(REQUESTS);
    let short = cases.iter().filter(|case| case.bytes.len() < 400);
    let wrong: Vec<String> = short
        .filter_map(|case| {
            origin.forget();
            let problem = sent_in_bytes(case, &weir, &origin).err()?;
            Some(format!("{}: {}: {problem}", case.section, case.what))
        })
        .collect();
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

fn sent_at_once(case: &Case, weir: &Weir, origin: &Origin) -> Result<(), String> {
    let mut client = Client::connect(weir.address());
    // Weir may respond before it has read everything, and then the rest is not read.
    let _taken = client.try_send(&case.bytes);
    judge(case, client, origin)
}

fn sent_in_bytes(case: &Case, weir: &Weir, origin: &Origin) -> Result<(), String> {
    let mut client = Client::connect(weir.address());
    for byte in &case.bytes {
        if client.try_send([*byte]).is_err() {
            break;
        }
    }
    judge(case, client, origin)
}

/// Whether the connection must serve the next request.
fn is_kept(case: &Case) -> bool {
    case.has("keep") || (case.statuses().last() == Some(&200) && !case.has("close"))
}

/// Whether it has come to what the table says.
fn judge(case: &Case, mut client: Client, origin: &Origin) -> Result<(), String> {
    let statuses = case.statuses();
    let method = case.bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    let method = String::from_utf8_lossy(method).into_owned();
    for (number, status) in statuses.iter().enumerate() {
        let answer = client.try_read_answer(&method);
        let answer = answer.map_err(|failure| format!("answer {number}: {failure:?}"))?;
        if answer.status() != *status {
            return Err(format!("answer {number} is {}, not {status}", answer.status()));
        }
        let is_last = number + 1 == statuses.len();
        let closes = !is_kept(case);
        if is_last && closes != answer.head.is_last() {
            return Err(format!("says to close: {}", answer.head.is_last()));
        }
    }
    let (whole, bytes) = (origin.whole(), origin.bytes());
    let passed = statuses.iter().filter(|status| **status == 200).count();
    if is_kept(case) {
        client
            .try_send("GET /after HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .map_err(|e| e.to_string())?;
        let after =
            client.try_read_answer("GET").map_err(|failure| format!("after: {failure:?}"))?;
        if (after.status(), after.text().as_str()) != (200, "/after") {
            return Err(format!("after it came {} {:?}", after.status(), after.text()));
        }
    } else if !client.is_closed_within(TIMEOUT) {
        return Err("the connection is not closed".to_owned());
    }
    if case.has("cut") {
        eventually(TIMEOUT, "the backend's connection is cut", || origin.open() == 0);
        let seen = origin.bytes();
        if origin.whole() > 0 || seen.ends_with(b"0\r\n\r\n") {
            return Err(format!("the origin got it whole: {}", seen.escape_ascii()));
        }
        return Ok(());
    }
    if whole != passed || (passed == 0 && !bytes.is_empty()) {
        return Err(format!("the origin got {whole}, not {passed}: {}", bytes.escape_ascii()));
    }
    Ok(())
}
