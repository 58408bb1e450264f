//! Reads jute from a borrowed buffer. Whatever it returns borrows from that buffer too: decoding copies nothing.
//!
//! Exactly as strict as ZooKeeper, since a client must not notice the difference: bytes after a record are ignored, any
//! non-zero byte is true, malformed UTF-8 is replaced. Nothing is allocated for a length that has not been checked
//! against the bytes that are there.

use std::borrow::Cow;

/// Why bytes are refused: always the sender's fault.
#[derive(Debug, PartialEq, Eq, Clone, Copy, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the named field needs.
    #[error("{0}: the bytes end too early")]
    Short(&'static str),
    /// A length that is negative and not null's -1.
    #[error("{0}: impossible length {1}")]
    Length(&'static str, i32),
    /// Null where there has to be something.
    #[error("{0}: null")]
    Null(&'static str),
    /// A number that stands for nothing here.
    #[error("{0}: unknown value {1}")]
    Unknown(&'static str, i32),
}

/// A string field: `None` is jute's null (length -1), which is not the empty string.
pub type Text<'a> = Option<Cow<'a, str>>;

pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Passes over these bytes, if they come next.
    #[inline]
    pub fn skip_if(&mut self, bytes: &[u8]) -> bool {
        let after = self.rest.strip_prefix(bytes);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short(field))?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    pub fn int(&mut self, field: &'static str) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    #[inline]
    pub fn long(&mut self, field: &'static str) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    #[inline]
    pub fn bool(&mut self, field: &'static str) -> Result<bool, Malformed> {
        Ok(self.array::<1>(field)?[0] != 0)
    }

    /// `None` is null, which is not the empty buffer: ZooKeeper tells them apart.
    #[inline]
    pub fn buffer(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, Malformed> {
        let raw = self.int(field)?;
        match usize::try_from(raw) {
            Err(_) if raw == -1 => Ok(None),
            Err(_) => Err(Malformed::Length(field, raw)),
            Ok(len) => {
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Short(field))?;
                self.rest = rest;
                Ok(Some(bytes))
            }
        }
    }

    /// Text, with U+FFFD in place of what is not UTF-8, as Java decodes it. Sound text is borrowed.
    #[inline]
    pub fn text(&mut self, field: &'static str) -> Result<Text<'a>, Malformed> {
        Ok(self.buffer(field)?.map(decode_text))
    }

    /// Text that may not be null.
    pub fn string(&mut self, field: &'static str) -> Result<Cow<'a, str>, Malformed> {
        self.text(field)?.ok_or(Malformed::Null(field))
    }

    /// Text that a server wrote, not null: with the characters outside the basic plane that `Jute::put_text` took apart.
    pub fn written(&mut self, field: &'static str) -> Result<Cow<'a, str>, Malformed> {
        self.buffer(field)?.map(decode_written).ok_or(Malformed::Null(field))
    }

    /// The count of a vector: `None` is null, and any other negative number is an empty one, as in Java. The count is the
    /// sender's claim: allocate for no more than the bytes that are left can hold (`capacity`).
    pub fn count(&mut self, field: &'static str) -> Result<Option<usize>, Malformed> {
        Ok(match self.int(field)? {
            -1 => None,
            count => Some(usize::try_from(count).unwrap_or(0)),
        })
    }

    /// How many of `count` announced items of at least `item_bytes` each can be there.
    pub fn capacity(&self, count: usize, item_bytes: usize) -> usize {
        count.min(self.rest.len() / item_bytes)
    }

    /// A vector of strings that may each be null.
    pub fn texts(&mut self, field: &'static str) -> Result<Option<Vec<Text<'a>>>, Malformed> {
        let Some(count) = self.count(field)? else { return Ok(None) };
        let mut items = Vec::with_capacity(self.capacity(count, 4));
        for _ in 0..count {
            items.push(self.text(field)?);
        }
        Ok(Some(items))
    }
}

/// Java's lenient decoding: a lone or paired surrogate that was encoded as three bytes becomes one U+FFFD, other damage
/// one U+FFFD for each maximal piece.
#[inline]
pub fn decode_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(decode_damaged(bytes)),
    }
}

#[cold]
fn decode_damaged(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    while let Err(error) = std::str::from_utf8(bytes) {
        let (sound, rest) = bytes.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(sound));
        text.push('\u{fffd}');
        let surrogate = matches!(rest, [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..]);
        let skip = if surrogate { 3 } else { error.error_len().unwrap_or(rest.len()) };
        bytes = &rest[skip..];
    }
    text.push_str(&String::from_utf8_lossy(bytes));
    text
}

/// Text that a server wrote. ZooKeeper writes a character outside the basic plane as two surrogates of three bytes each,
/// and when it reads them again it has lost the character. Here it is put together again: one who owns a znode by such a
/// name owns it in every copy. Any other damage is replaced, as by `decode_text`.
#[inline]
pub fn decode_written(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(decode_text(&join_surrogates(bytes)).into_owned()),
    }
}

#[cold]
fn join_surrogates(bytes: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        match rest {
            [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, after @ ..] => {
                let high = (*a as u32 & 0x0f) << 6 | (*b as u32 & 0x3f);
                let low = (*c as u32 & 0x0f) << 6 | (*d as u32 & 0x3f);
                let character = char::from_u32(0x1_0000 + (high << 10 | low)).expect("two halves of one");
                joined.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            _ => {
                joined.push(*first);
                rest = after;
            }
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_differ_and_other_negative_lengths_are_refused() {
        assert_eq!(Reader::new(&[0xff; 4]).buffer("b"), Ok(None));
        assert_eq!(Reader::new(&[0; 4]).buffer("b"), Ok(Some(&[][..])));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xfe]).buffer("b"), Err(Malformed::Length("b", -2)));
        assert_eq!(Reader::new(&[0x7f, 0xff, 0xff, 0xff, 1]).buffer("b"), Err(Malformed::Short("b")));
    }

    #[test]
    fn a_huge_count_allocates_only_for_what_is_there() {
        let mut bytes = vec![0x7f, 0xff, 0xff, 0xff];
        bytes.extend([0, 0, 0, 0]);
        assert_eq!(Reader::new(&bytes).texts("t"), Err(Malformed::Short("t")));
        assert_eq!(Reader::new(&[0x80, 0, 0, 0]).texts("t"), Ok(Some(vec![])));
    }

    #[test]
    fn what_was_taken_apart_to_be_written_is_put_together_again() {
        use crate::wire::writer::Jute;
        for text in ["", "a", "\u{e4}", "\u{1f600}", "a\u{1f600}\u{10000}\u{10ffff}\u{ffff}\u{d7ff}:b"] {
            let mut bytes = Vec::new();
            bytes.put_text(text);
            assert_eq!(Reader::new(&bytes).written("t").unwrap(), text);
        }
        for damage in [&b"x\xed\xa0\xbd"[..], b"\xed\xb8\x80\xed\xa0\xbd", b"\xed\xa0\xbd\xed\xb8", b"\xff\xf0"] {
            assert_eq!(decode_written(damage), decode_text(damage), "half of one, or none");
        }
        assert_eq!(Reader::new(&[0xff; 4]).written("t"), Err(Malformed::Null("t")));
    }

    #[test]
    fn damaged_text_is_replaced_as_java_does() {
        assert_eq!(decode_text(b"/a\xffb"), "/a\u{fffd}b");
        assert_eq!(decode_text(b"\xed\xa0\xbd\xed\xb8\x80"), "\u{fffd}\u{fffd}");
        assert_eq!(decode_text(b"x\xe2\x82"), "x\u{fffd}");
    }
}
