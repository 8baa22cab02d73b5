//! Request ids: the name of one request in the logs of all servers that handle it.

use std::fmt;

/// The longest id that is accepted from a client.
pub const LENGTH_MAX: usize = 128;

/// The id of an incoming request, if it is safe to repeat: short, and without characters that could
/// break a log line or a header, or look like markup.
#[must_use]
pub fn accept(value: &str) -> Option<&str> {
    let fits = (1..=LENGTH_MAX).contains(&value.len());
    (fits && value.bytes().all(is_id_byte)).then_some(value)
}

/// The characters of UUIDs, ULIDs, base 64 and trace ids.
const fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'-')
}

/// A generated id: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 32]);

/// Creates an id from 128 random bits.
#[must_use]
pub fn from_roll(roll: u128) -> RequestId {
    let mut text = [b'0'; 32];
    let (pairs, _) = text.as_chunks_mut::<2>();
    for ([high, low], byte) in pairs.iter_mut().zip(roll.to_be_bytes()) {
        *high = hex_digit(byte >> 4);
        *low = hex_digit(byte & 0xf);
    }
    RequestId(text)
}

impl RequestId {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Hexadecimal digits are ASCII, so the default is never used.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

const fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_ids_are_accepted() {
        for id in ["0", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "aGk+/w==", "a.b_c~d"] {
            assert_eq!(accept(id), Some(id));
        }
    }

    #[test]
    fn an_id_that_could_break_a_log_line_is_rejected() {
        for id in ["", "a b", "a\nb", "a\"b", "a,b", "<b>", "é", "a;b", "a\0"] {
            assert_eq!(accept(id), None, "{id:?}");
        }
    }

    #[test]
    fn an_id_has_at_most_128_characters() {
        assert!(accept(&"x".repeat(128)).is_some());
        assert!(accept(&"x".repeat(129)).is_none());
    }

    #[test]
    fn a_generated_id_has_32_digits() {
        assert_eq!(from_roll(0).as_str(), "00000000000000000000000000000000");
        assert_eq!(from_roll(0x1f).as_str(), "0000000000000000000000000000001f");
        assert_eq!(from_roll(u128::MAX).to_string(), "ffffffffffffffffffffffffffffffff");
    }

    proptest! {
        #[test]
        fn a_generated_id_encodes_its_random_bits_and_is_accepted(roll in any::<u128>()) {
            let id = from_roll(roll);
            prop_assert_eq!(id.as_str(), format!("{roll:032x}"));
            prop_assert_eq!(accept(id.as_str()), Some(id.as_str()));
        }
    }
}
