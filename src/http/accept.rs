//! The content type of Weir's own responses, negotiated by `Accept` (RFC 9110 §12.5.1).

/// The supported content types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `text/plain`
    Text,
    /// `application/json`
    Json,
}

/// The content type that `accept` prefers. Text wins ties, and is the default without a preference
/// or if neither is accepted: an explanation in the wrong type is better than none.
#[must_use]
pub fn preferred(accept: Option<&str>) -> Form {
    let accept = accept.unwrap_or_default();
    if quality(accept, "application", "json") > quality(accept, "text", "plain") {
        Form::Json
    } else {
        Form::Text
    }
}

/// The weight, in thousandths, of the most precise range that covers the media type. Invalid
/// elements are skipped.
fn quality(accept: &str, kind: &str, subtype: &str) -> u16 {
    let mut best = (0, 0);
    for element in accept.split(',') {
        let mut parts = element.split(';').map(str::trim);
        let Some((range_kind, range_subtype)) =
            parts.next().and_then(|range| range.split_once('/'))
        else {
            continue;
        };
        let same_kind = range_kind.eq_ignore_ascii_case(kind);
        let precision = match (range_kind, range_subtype) {
            _ if same_kind && range_subtype.eq_ignore_ascii_case(subtype) => 3,
            (_, "*") if same_kind => 2,
            ("*", "*") => 1,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix(['q', 'Q'])?.strip_prefix('='));
        if let Some(thousandths) = weight.map_or(Some(1000), thousandths) {
            best = best.max((precision, thousandths));
        }
    }
    best.1
}

/// `0.75` → 750: one digit, and up to three decimals.
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let is_digits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "1" => (is_digits && fraction.bytes().all(|byte| byte == b'0')).then_some(1000),
        "0" if is_digits => format!("{fraction:0<3}").parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(accept: &str) -> Form {
        preferred(Some(accept))
    }

    #[test]
    fn without_a_preference_the_response_is_text() {
        assert_eq!(preferred(None), Form::Text);
        assert_eq!(form(""), Form::Text);
    }

    #[test]
    fn a_client_that_asks_for_json_gets_json() {
        assert_eq!(form("application/json"), Form::Json);
        assert_eq!(form("Application/JSON; charset=utf-8"), Form::Json);
        assert_eq!(form("text/html, application/json;q=0.9"), Form::Json);
        assert_eq!(form("application/*"), Form::Json);
    }

    #[test]
    fn the_greater_weight_wins() {
        assert_eq!(form("text/plain;q=0.8, application/json;q=0.81"), Form::Json);
        assert_eq!(form("text/plain;q=0.9, application/json;q=0.899"), Form::Text);
        assert_eq!(form("application/json, text/plain;q=0.999"), Form::Json);
    }

    #[test]
    fn text_wins_ties() {
        assert_eq!(form("*/*"), Form::Text);
        assert_eq!(form("application/json, text/plain"), Form::Text);
        assert_eq!(form("application/json, */*"), Form::Text);
    }

    #[test]
    fn a_browser_gets_text() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(form(browser), Form::Text);
    }

    #[test]
    fn the_most_precise_range_counts_whatever_its_weight() {
        assert_eq!(form("text/plain;q=0.1, */*;q=0.5"), Form::Json);
        assert_eq!(form("text/*;q=0, */*;q=0.001"), Form::Json);
        assert_eq!(form("application/json;q=0, application/*"), Form::Text);
    }

    #[test]
    fn a_client_that_accepts_neither_gets_text() {
        assert_eq!(form("image/png"), Form::Text);
        assert_eq!(form("application/json;q=0"), Form::Text);
    }

    #[test]
    fn an_invalid_element_is_skipped() {
        assert_eq!(form("json, application/json;q=2"), Form::Text);
        assert_eq!(form("application/json;q=1.5, */json, ;;,"), Form::Text);
        assert_eq!(form("application/json;q=0.0001"), Form::Text);
        assert_eq!(form("application/json;q=+1"), Form::Text);
        assert_eq!(form("broken, application/json"), Form::Json);
    }

    proptest! {
        #[test]
        fn no_text_makes_preferred_panic(text in any::<String>()) {
            let _seen = form(&text);
        }
    }
}
