//! Limits the rate of frames from an HTTP/2 client (RFC 9113 §4.1).
//!
//! Some frames cost the sender nothing and Weir something: a ping needs a response, a stream that
//! is reset at once has been set up, settings are applied (RFC 9113 §10.5). The `h2` library bounds
//! the memory they take; this bounds their number. Well-behaved clients send a few now and then, so
//! a budget that refills over time distinguishes them from a flood.

use super::bucket::{Rate, TokenBucket};
use crate::time::Timestamp;

const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;

/// Frames without payload: a thousand at once, then a hundred each second.
const IDLE: Rate = Rate::of_nanos(10_000_000, 1000);
/// Window updates: 4000 at once, then a thousand each second, and one more for each KiB that was
/// sent to the client.
const UPDATES: Rate = Rate::of_nanos(1_000_000, 4000);
/// Each of these many bytes sent to the client earns one window update.
const BYTES_PER_UPDATE: u64 = 1024;

/// Why a connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameViolation {
    /// More frames than any well-behaved client sends.
    #[error("a flood of HTTP/2 frames that carry nothing")]
    Flood,
    /// The preface was not followed by settings (RFC 9113 §3.4). The `h2` library would accept
    /// that.
    #[error("the first HTTP/2 frame is no SETTINGS")]
    NoSettings,
}

/// Counts the frames of one HTTP/2 connection.
#[derive(Debug)]
pub struct FrameBudget {
    /// Bytes to skip: the preface, or the rest of a payload.
    skip: usize,
    header: [u8; HEADER_BYTES],
    filled: usize,
    has_begun: bool,
    idle: TokenBucket,
    updates: TokenBucket,
}

impl Default for FrameBudget {
    fn default() -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            filled: 0,
            has_begun: false,
            idle: TokenBucket::new(),
            updates: TokenBucket::new(),
        }
    }
}

impl FrameBudget {
    /// Counts frames in bytes from the client.
    ///
    /// # Errors
    /// [`FrameViolation`]
    pub fn received(&mut self, mut bytes: &[u8], now: Timestamp) -> Result<(), FrameViolation> {
        let mut outcome = Ok(());
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let missing = HEADER_BYTES - self.filled;
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            for (to, from) in self.header.iter_mut().skip(self.filled).zip(part) {
                *to = *from;
            }
            self.filled += part.len();
            bytes = rest;
            if self.filled == HEADER_BYTES {
                self.filled = 0;
                outcome = outcome.and(self.frame(now));
            }
        }
        outcome
    }

    /// Counts bytes sent to the client, which responds with window updates.
    pub fn sent(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.updates.refund(UPDATES, bytes.div_ceil(BYTES_PER_UPDATE));
    }

    fn frame(&mut self, now: Timestamp) -> Result<(), FrameViolation> {
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.skip = length;
        if !self.has_begun {
            self.has_begun = true;
            let is_first = kind == SETTINGS && flags & ACK == 0;
            return if is_first { Ok(()) } else { Err(FrameViolation::NoSettings) };
        }
        match kind {
            DATA if length > 0 || flags & END_STREAM != 0 => Ok(()),
            HEADERS | CONTINUATION if length > 0 => Ok(()),
            WINDOW_UPDATE => charge(&mut self.updates, UPDATES, now),
            // All other frames do not advance a request: settings, pings, resets, priorities, empty
            // frames, and unknown ones.
            _ => charge(&mut self.idle, IDLE, now),
        }
    }
}

fn charge(bucket: &mut TokenBucket, rate: Rate, now: Timestamp) -> Result<(), FrameViolation> {
    bucket.take_unshared(rate, now).map_err(|_wait| FrameViolation::Flood)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 0x6;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(milliseconds)
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// A connection after its preface.
    fn connection() -> FrameBudget {
        let mut frames = FrameBudget::default();
        frames.received(PREFACE, at(0)).unwrap();
        frames.received(&frame(SETTINGS, 0, b""), at(0)).unwrap();
        frames
    }

    /// How many of these frames pass at once.
    fn pass(frames: &mut FrameBudget, bytes: &[u8], now: Timestamp) -> usize {
        (0..10_000).take_while(|_| frames.received(bytes, now).is_ok()).count()
    }

    #[test]
    fn a_thousand_pings_at_once_are_enough_and_a_hundred_each_second() {
        let mut frames = connection();
        let ping = frame(PING, 0, &[0; 8]);
        assert_eq!(pass(&mut frames, &ping, at(0)), 1000);
        assert_eq!(pass(&mut frames, &ping, at(1000)), 100);
        assert_eq!(pass(&mut frames, &ping, at(60_000)), 1000);
    }

    #[test]
    fn settings_resets_priorities_and_unknown_frames_are_limited_too() {
        for kind in [0x2, 0x3, 0x4, 0x5, 0x7, 0xfa] {
            assert_eq!(pass(&mut connection(), &frame(kind, 0, &[0; 8]), at(0)), 1000, "{kind:#x}");
        }
    }

    #[test]
    fn empty_frames_are_counted_and_others_are_not() {
        for (bytes, passing) in [
            (frame(DATA, 0, b""), 1000),
            (frame(HEADERS, 0, b""), 1000),
            (frame(CONTINUATION, 0, b""), 1000),
            (frame(DATA, END_STREAM, b""), 10_000),
            (frame(DATA, 0, b"x"), 10_000),
            (frame(HEADERS, 0, b"x"), 10_000),
        ] {
            assert_eq!(pass(&mut connection(), &bytes, at(0)), passing, "{bytes:?}");
        }
    }

    #[test]
    fn bytes_sent_earn_window_updates() {
        let mut frames = connection();
        let update = frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
        assert_eq!(pass(&mut frames, &update, at(0)), 4000);
        frames.sent(1024 * 1024);
        assert_eq!(pass(&mut frames, &update, at(0)), 1024);
    }

    #[test]
    fn settings_must_come_first() {
        for (kind, flags) in [(PING, 0), (HEADERS, 0x5), (SETTINGS, ACK), (0xfa, 0)] {
            let bytes = [PREFACE, &frame(kind, flags, &[0; 8])].concat();
            let received = FrameBudget::default().received(&bytes, at(0));
            assert_eq!(received, Err(FrameViolation::NoSettings), "{kind:#x}");
        }
    }

    #[test]
    fn frames_are_found_however_the_input_is_split() {
        let whole = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, b""),
            frame(HEADERS, 0, &[0; 200]),
            frame(PING, 0, &[0; 8]).repeat(1001),
        ]
        .concat();
        for size in [1, 2, 7, 9, 24, 1000, whole.len()] {
            let mut frames = FrameBudget::default();
            let mut fed = 0;
            let flooded = whole.chunks(size).any(|piece| {
                fed += piece.len();
                frames.received(piece, at(0)).is_err()
            });
            assert!(flooded, "pieces of {size}");
            assert!(fed + 17 + size > whole.len(), "not before the last: {fed}");
        }
    }
}
