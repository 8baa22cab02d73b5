//! The end of a request body is not an empty piece.
//!
//! HTTP/2 can end a body with an empty DATA frame. Pingora writes that to an HTTP/1 backend as a
//! chunk of length 0, which is the last chunk, and then writes the last chunk again. The backend
//! would take the second one for the start of another request.
//!
//! This is needed until Pingora's HTTP/1 client writes no chunk for an empty piece.

use bytes::Bytes;

/// Removes an empty piece at the end of a body.
pub(crate) fn remove_empty(piece: &mut Option<Bytes>, is_end: bool) {
    *piece = piece.take().filter(|piece| !(is_end && piece.is_empty()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_piece_at_the_end_is_removed() {
        let after = |piece: &'static [u8], is_end| {
            let mut piece = Some(Bytes::from_static(piece));
            remove_empty(&mut piece, is_end);
            piece
        };
        assert_eq!(after(b"", true), None);
        assert_eq!(after(b"", false), Some(Bytes::new()));
        assert_eq!(after(b"a", true), Some(Bytes::from_static(b"a")));
    }
}
