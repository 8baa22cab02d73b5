//! Query parameters.

use std::borrow::Cow;

/// The value of the first parameter named `name`, decoded like a form: `%41` is `A`, `+` is a
/// space, and a parameter without `=` is empty. Invalid UTF-8 becomes `U+FFFD`.
#[must_use]
pub fn first<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    parameters.find(|(other, _)| other == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_is_taken() {
        assert_eq!(first("a=1&b=2&a=3", "a").as_deref(), Some("1"));
        assert_eq!(first("a=1", "b"), None);
    }

    #[test]
    fn both_sides_are_decoded_once() {
        assert_eq!(first("%61=%2541", "a").as_deref(), Some("%41"));
        assert_eq!(first("a=x+y", "a").as_deref(), Some("x y"));
    }

    #[test]
    fn a_parameter_without_a_value_is_empty() {
        assert_eq!(first("debug", "debug").as_deref(), Some(""));
        assert_eq!(first("&&debug=&", "debug").as_deref(), Some(""));
        assert_eq!(first("", ""), None);
    }
}
