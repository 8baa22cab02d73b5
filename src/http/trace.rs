//! Trace context (W3C Recommendation "Trace Context", level 1).

/// Whether `text` is a `traceparent`: two digits for the version, 32 for the trace, 16 for the
/// parent, two for the flags. A later version may append more (§3.2.4).
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let mut parts = text.splitn(5, '-');
    let mut digits = |count: usize| {
        parts.next().filter(|part| {
            let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            part.len() == count && part.bytes().all(digit)
        })
    };
    let (version, trace, parent, flags) = (digits(2), digits(32), digits(16), digits(2));
    let is_null = |id: &str| id.bytes().all(|b| b == b'0');
    let (Some(version), Some(trace), Some(parent), Some(_)) = (version, trace, parent, flags)
    else {
        return false;
    };
    let more = parts.next().is_some();
    version != "ff" && !is_null(trace) && !is_null(parent) && (version != "00" || !more)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_has_its_four_parts() {
        assert!(is_traceparent(GOOD));
        assert!(is_traceparent(&GOOD.replacen("00-", "cc-", 1)));
        assert!(is_traceparent(&format!("{}-more", GOOD.replacen("00-", "cc-", 1))));
    }

    #[test]
    fn anything_else_is_rejected() {
        for wrong in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replace("4bf9", "4BF9"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
            &format!(" {GOOD}"),
        ] {
            assert!(!is_traceparent(wrong), "{wrong}");
        }
    }
}
