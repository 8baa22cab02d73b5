//! Numbers by client as one short string, for the messages of a handover.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::policy::limiter::{Bucket, Debit};

/// What is packed for each client.
pub(super) trait PackedRow: Copy + Ord {
    /// What the log calls several of them.
    const NAME: &'static str;

    /// The client.
    fn tag(self) -> u64;

    /// Rows with the largest numbers are kept where there are too many.
    fn weight(self) -> u64;

    /// Appends everything but the tag.
    fn push(self, bytes: &mut Vec<u8>);

    /// Reads what [`push`](Self::push) has appended.
    fn pull(tag: u64, rest: &mut &[u8]) -> Option<Self>;
}

impl PackedRow for Bucket {
    const NAME: &'static str = "buckets";

    fn tag(self) -> u64 {
        self.tag
    }

    fn weight(self) -> u64 {
        self.full_in_ns
    }

    fn push(self, bytes: &mut Vec<u8>) {
        push(bytes, self.full_in_ns);
    }

    fn pull(tag: u64, rest: &mut &[u8]) -> Option<Self> {
        Some(Self { tag, full_in_ns: pull(rest)? })
    }
}

impl PackedRow for Debit {
    const NAME: &'static str = "debits";

    fn tag(self) -> u64 {
        self.tag
    }

    fn weight(self) -> u64 {
        self.spent_ns
    }

    fn push(self, bytes: &mut Vec<u8>) {
        push(bytes, self.spent_ns);
        push(bytes, self.full_in_ns);
    }

    fn pull(tag: u64, rest: &mut &[u8]) -> Option<Self> {
        Some(Self { tag, spent_ns: pull(rest)?, full_in_ns: pull(rest)? })
    }
}

/// Rows sorted by tag.
///
/// Serialized as one string: the tag's distance to the previous one and the other numbers, each in
/// groups of seven bits (LEB128), all in base64. A hundred thousand buckets take 1.6 MB; as decimal
/// numbers in JSON they would take twice that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed<R>(Vec<R>);

impl<R> Default for Packed<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R: PackedRow> Packed<R> {
    /// The rows with the largest weights, at most `max`, to bound the size of the message.
    pub(super) fn largest(mut rows: Vec<R>, max: usize) -> Self {
        if rows.len() > max {
            log::warn!("handoff: {} left out: count={}", R::NAME, rows.len() - max);
            rows.select_nth_unstable_by_key(max, |row| u64::MAX - row.weight());
            rows.truncate(max);
        }
        rows.sort_unstable();
        Self(rows)
    }

    pub(super) fn rows(&self) -> &[R] {
        &self.0
    }

    fn pack(&self) -> Vec<u8> {
        let (mut bytes, mut before) = (Vec::with_capacity(self.0.len() * 18), 0_u64);
        for row in &self.0 {
            push(&mut bytes, row.tag().wrapping_sub(before));
            row.push(&mut bytes);
            before = row.tag();
        }
        bytes
    }

    fn unpack(mut bytes: &[u8]) -> Option<Self> {
        let (mut rows, mut tag) = (Vec::new(), 0_u64);
        while !bytes.is_empty() {
            tag = tag.wrapping_add(pull(&mut bytes)?);
            rows.push(R::pull(tag, &mut bytes)?);
        }
        Some(Self(rows))
    }
}

impl<R: PackedRow> Serialize for Packed<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.pack()))
    }
}

impl<'de, R: PackedRow> Deserialize<'de> for Packed<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(de::Error::custom)?;
        let end = || de::Error::custom(format!("the {} end in the middle", R::NAME));
        Self::unpack(&bytes).ok_or_else(end)
    }
}

/// Seven bits per byte, the lowest first; the eighth bit is set if more follow.
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}

fn pull(rest: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0_u64, 0_u32);
    loop {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(tag: u64, full_in_ns: u64) -> Bucket {
        Bucket { tag, full_in_ns }
    }

    fn debit(tag: u64, spent_ns: u64, full_in_ns: u64) -> Debit {
        Debit { tag, spent_ns, full_in_ns }
    }

    #[test]
    fn of_too_many_rows_the_largest_are_kept_in_the_order_of_their_tags() {
        let buckets = vec![bucket(9, 10), bucket(2, 30), bucket(7, 20), bucket(5, 40)];
        assert_eq!(Packed::largest(buckets, 2).rows(), [bucket(2, 30), bucket(5, 40)]);
        let debits = vec![debit(9, 10, 0), debit(2, 30, 0), debit(7, 20, 0), debit(5, 40, 0)];
        assert_eq!(Packed::largest(debits, 2).rows(), [debit(2, 30, 0), debit(5, 40, 0)]);
    }

    #[test]
    fn the_largest_numbers_survive_packing() {
        let buckets = vec![bucket(2, 0), bucket(3, u64::MAX), bucket(u64::MAX, 127)];
        let packed = Packed(buckets.clone()).pack();
        assert_eq!(Packed::unpack(&packed), Some(Packed(buckets)));
        let debits = vec![debit(2, 0, u64::MAX), debit(3, u64::MAX, 0), debit(u64::MAX, 127, 128)];
        let packed = Packed(debits.clone()).pack();
        assert_eq!(Packed::unpack(&packed), Some(Packed(debits)));
    }

    #[test]
    fn truncated_bytes_are_rejected() {
        let packed = Packed(vec![bucket(300, 300)]).pack();
        assert_eq!(packed.len(), 4);
        for end in 1..4 {
            assert_eq!(Packed::<Bucket>::unpack(&packed[..end]), None, "{end} of 4 bytes");
        }
        let packed = Packed(vec![debit(300, 300, 300)]).pack();
        assert_eq!(packed.len(), 6);
        for end in 1..6 {
            assert_eq!(Packed::<Debit>::unpack(&packed[..end]), None, "{end} of 6 bytes");
        }
    }
}
