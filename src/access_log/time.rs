//! Formats the time of a log line: RFC 3339 with milliseconds.
//!
//! Formatting takes a tenth of the whole line, and most lines of a second differ only in the
//! milliseconds. So each thread caches the text of the last second.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use humantime::{format_rfc3339_millis, format_rfc3339_seconds};

/// A second since the epoch, and its text up to the seconds.
struct Second {
    number: u64,
    text: String,
}

thread_local! {
    static LAST: RefCell<Second> = const { RefCell::new(Second { number: u64::MAX, text: String::new() }) };
}

/// Appends `at`.
///
/// # Errors
/// The year is not between 1970 and 9999.
pub(super) fn push(line: &mut String, at: SystemTime) -> fmt::Result {
    let Ok(since) = at.duration_since(UNIX_EPOCH) else {
        return write!(line, "{}", format_rfc3339_millis(at));
    };
    LAST.with_borrow_mut(|last| {
        if last.number != since.as_secs() {
            last.number = u64::MAX; // invalid until the text is complete
            last.text.clear();
            write!(last.text, "{}", format_rfc3339_seconds(at))?;
            last.text.truncate(last.text.len().saturating_sub("Z".len()));
            last.number = since.as_secs();
        }
        line.push_str(&last.text);
        let millis = since.subsec_millis();
        line.push('.');
        for digit in [millis / 100, millis / 10 % 10, millis % 10] {
            line.push(char::from_digit(digit, 10).unwrap_or('0'));
        }
        line.push('Z');
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_text_equals_that_of_the_library(
            times in prop::collection::vec((0_u64..253_402_300_800, 0_u32..1_000_000_000), 1..5),
            again in 0_u32..1_000_000_000,
        ) {
            for (seconds, nanos) in times {
                for nanos in [nanos, again] {
                    let at = UNIX_EPOCH + Duration::new(seconds, nanos);
                    let mut text = String::new();
                    push(&mut text, at).unwrap();
                    prop_assert_eq!(text, format_rfc3339_millis(at).to_string());
                }
            }
        }
    }

    #[test]
    fn an_unsupported_year_is_an_error_and_leaves_no_text() {
        let late = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        assert!(push(&mut String::new(), late).is_err());
        assert!(push(&mut String::new(), late).is_err());
        let mut text = String::new();
        push(&mut text, UNIX_EPOCH).unwrap();
        assert_eq!(text, "1970-01-01T00:00:00.000Z");
    }
}
