//! Byte classes, and fast searches for them.
//!
//! Values and targets are searched eight bytes at a time. In each sum below, a byte that is
//! searched for sets the highest bit of its position. A borrow can set the bit of a later position
//! by mistake, but only after a correct one, and only the first is used.

use crate::http::target::is_odd;

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHEST: u64 = u64::from_ne_bytes([0x80; 8]);

/// The position of the first control character in a header value, including tab: the end of the
/// value, or a byte that is not allowed.
pub(super) fn value_end(bytes: &[u8]) -> Option<usize> {
    find(bytes, |word| below(word, 0x20) | equal(word, 0x7f), is_control)
}

/// The position of the first byte that ends a target, is not allowed in it (anything but visible
/// ASCII, and `#`: RFC 9110 §4.1), or is not allowed in a URI.
pub(super) fn target_pause(bytes: &[u8]) -> Option<usize> {
    let pauses = |word| {
        let odd = equal(word, u64::from(b'"')) | equal(word, u64::from(b'`'));
        // `<` and `>` differ in one bit.
        let odd = odd | equal(word | ONES.wrapping_mul(2), u64::from(b'>'));
        ends_target(word) | odd
    };
    find(bytes, pauses, |byte| is_not_target(byte) || is_odd(byte))
}

/// The same without the bytes that only a URI does not allow.
pub(super) fn target_end(bytes: &[u8]) -> Option<usize> {
    find(bytes, ends_target, is_not_target)
}

const fn ends_target(word: u64) -> u64 {
    below(word, 0x21) | equal(word, 0x7f) | equal(word, 0x23) | (word & HIGHEST)
}

const fn is_not_target(byte: u8) -> bool {
    !byte.is_ascii_graphic() || byte == b'#'
}

const fn is_control(byte: u8) -> bool {
    byte.is_ascii_control()
}

fn find(bytes: &[u8], mark: impl Fn(u64) -> u64, is_it: impl Fn(u8) -> bool) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let marked = mark(u64::from_le_bytes(*word));
        if marked != 0 {
            let position = usize::try_from(marked.trailing_zeros() / 8).unwrap_or(0);
            return Some(at * 8 + position);
        }
    }
    let at = rest.iter().position(|byte| is_it(*byte))?;
    Some(words.len() * 8 + at)
}

const fn below(word: u64, bound: u64) -> u64 {
    word.wrapping_sub(ONES.wrapping_mul(bound)) & !word & HIGHEST
}

const fn equal(word: u64, byte: u64) -> u64 {
    let differs = word ^ ONES.wrapping_mul(byte);
    differs.wrapping_sub(ONES) & !differs & HIGHEST
}

/// The number of leading bytes that are allowed in a name.
pub(super) fn name_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_token(*byte)).unwrap_or(bytes.len())
}

/// Whether the byte is allowed in a token (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut rest: &[u8] = b"!#$%&'*+-.^_`|~0123456789\
        ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    while let [byte, tail @ ..] = rest {
        // `as` is the only conversion available at compile time; it only widens.
        #[expect(clippy::as_conversions, clippy::indexing_slicing, reason = "at compile time")]
        {
            table[*byte as usize] = true;
        }
        rest = tail;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_found_at_every_position_or_not_at_all() {
        for byte in 0..=255_u8 {
            for place in 0..20 {
                let mut text = [b'a'; 20];
                text[place] = byte;
                let control = byte < 0x20 || byte == 0x7f;
                assert_eq!(value_end(&text), control.then_some(place), "{byte:#x} at {place}");
                let visible = (0x21..=0x7e).contains(&byte) && byte != b'#';
                assert_eq!(target_end(&text), (!visible).then_some(place), "{byte:#x} at {place}");
                let pauses = !visible || b"\"<>`".contains(&byte);
                assert_eq!(target_pause(&text), pauses.then_some(place), "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn of_several_the_first_is_found() {
        assert_eq!(value_end(b"ab\r\n\r\n\r\n"), Some(2));
        assert_eq!(value_end(b"\x7f\x01\x01\x01\x01\x01\x01\x01"), Some(0));
        assert_eq!(value_end(b"aaaaaa \x7f\0"), Some(7));
        assert_eq!(target_end(b"/a\xff# \0\0\0"), Some(2));
    }

    #[test]
    fn a_token_has_letters_digits_and_fifteen_more() {
        let all: Vec<u8> = (0..=255).filter(|byte| is_token(*byte)).collect();
        assert_eq!(all.len(), 26 * 2 + 10 + 15);
        assert!(!is_token(b':') && !is_token(b' ') && !is_token(b'"') && !is_token(0x80));
        assert_eq!((name_end(b"Host: a"), name_end(b":"), name_end(b"X-Y")), (4, 0, 3));
    }
}
