//! Files with backends: a URL and, if wanted, a weight per line.

use std::io::{self, Read as _};
use std::num::NonZeroU32;
use std::path::Path;

use crate::config::{BackendAddress, parse_backend_url};
use crate::runtime::members::FoundServer;

/// The largest file.
const BYTES_MAX: u64 = 1024 * 1024;
const WEIGHT_MAX: u32 = 1000;

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Vec<FoundServer>, String> {
    parse(&text(path).map_err(|error| error.to_string())?)
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// The backends in the text of a file, or what is wrong with its first bad line.
fn parse(text: &str) -> Result<Vec<FoundServer>, String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(url) = words.next() else { continue };
        let wrong = |why: &str| format!("line {}: {why}", index + 1);
        let (address, server_name) = parse_backend_url(url).map_err(|why| wrong(&why))?;
        let BackendAddress::Socket(address) = address else {
            return Err(wrong("a file has IP addresses only; for a host name write `dns`"));
        };
        let weight = words.next().map_or(Ok(NonZeroU32::MIN), |word| {
            let weight = word.parse::<NonZeroU32>().ok().filter(|it| it.get() <= WEIGHT_MAX);
            weight.ok_or_else(|| wrong(&format!("`{word}` is not a weight from 1 to 1000")))
        })?;
        if let Some(more) = words.next() {
            return Err(wrong(&format!("`{more}` is too much: write a URL and a weight")));
        }
        found.push(FoundServer { address, weight, server_name });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_url_and_perhaps_a_weight() {
        let text = "# backends\nhttp://10.0.0.1:80\n\nhttps://10.0.0.2:443 5 # new\n";
        let found = parse(text).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|it| (it.address.to_string(), it.weight.get(), it.server_name.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [("10.0.0.1:80".to_owned(), 1, None), ("10.0.0.2:443".to_owned(), 5, Some("10.0.0.2"))]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        for (line, part) in [
            ("10.0.0.1:80", "line 1: "),
            ("http://10.0.0.1:80 x", "`x` is not a weight"),
            ("http://10.0.0.1:80 0", "`0` is not a weight"),
            ("http://10.0.0.1:80 1 2", "`2` is too much"),
            ("http://web:80", "IP addresses only"),
        ] {
            let why = parse(line).unwrap_err();
            assert!(why.contains(part), "{line}: {why}");
        }
    }
}
