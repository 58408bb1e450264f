//! Writes jute, appending to a buffer that the caller owns; and frames that can't be sent half-written.

use crate::ids::Zxid;

/// Appends jute's types to a byte buffer.
pub trait Jute {
    fn put_int(&mut self, value: i32);
    fn put_long(&mut self, value: i64);
    fn put_bool(&mut self, value: bool);
    /// `None` is null, which is not the empty buffer.
    fn put_buffer(&mut self, value: Option<&[u8]>);
    /// Text as Java's archive writes it: characters outside the basic plane as two three-byte surrogates (CESU-8).
    fn put_text(&mut self, value: &str);
    /// Null text.
    fn put_null(&mut self);
}

impl Jute for Vec<u8> {
    #[inline]
    fn put_int(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    fn put_long(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    fn put_bool(&mut self, value: bool) {
        self.push(value as u8);
    }

    #[inline]
    fn put_buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.put_int(-1),
            Some(bytes) => {
                self.put_int(bytes.len() as i32);
                self.extend_from_slice(bytes);
            }
        }
    }

    #[inline]
    fn put_text(&mut self, value: &str) {
        // Only a lead byte of 0xf0 or above begins a character outside the basic plane. Nearly all text is ASCII, which
        // is seen a word at a time; the search for that byte stops where it finds it, and so goes byte by byte.
        if !value.is_ascii() && value.bytes().any(|byte| byte >= 0xf0) {
            put_cesu8(self, value);
        } else {
            self.put_buffer(Some(value.as_bytes()));
        }
    }

    #[inline]
    fn put_null(&mut self) {
        self.put_int(-1);
    }
}

#[cold]
fn put_cesu8(out: &mut Vec<u8>, value: &str) {
    let start = out.len();
    out.put_int(0);
    for unit in value.encode_utf16() {
        match unit {
            0..0x80 => out.push(unit as u8),
            0x80..0x800 => out.extend([0xc0 | (unit >> 6) as u8, 0x80 | (unit & 0x3f) as u8]),
            _ => {
                out.extend([0xe0 | (unit >> 12) as u8, 0x80 | (unit >> 6 & 0x3f) as u8, 0x80 | (unit & 0x3f) as u8]);
            }
        }
    }
    let len = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// A length-prefixed frame while it is being written, straight into a connection's output buffer.
///
/// A frame that is not closed never was: dropping it takes its bytes back. So an encoder may return early with `?`, and
/// the caller writes an error reply in its place.
pub struct Frame<'b> {
    pub bytes: &'b mut Vec<u8>,
    start: usize,
}

impl<'b> Frame<'b> {
    #[inline]
    pub fn open(bytes: &'b mut Vec<u8>) -> Frame<'b> {
        let start = bytes.len();
        bytes.put_int(-1); // No valid length, should these bytes ever be seen.
        Frame { bytes, start }
    }

    /// Opens a frame that begins with a ReplyHeader of error 0: its last four bytes, to be written over with another.
    #[inline]
    pub fn reply(bytes: &'b mut Vec<u8>, xid: i32, zxid: Zxid) -> Frame<'b> {
        let mut head = [0u8; 20];
        head[..4].copy_from_slice(&(-1i32).to_be_bytes());
        head[4..8].copy_from_slice(&xid.to_be_bytes());
        head[8..16].copy_from_slice(&zxid.0.to_be_bytes());
        let start = bytes.len();
        bytes.extend_from_slice(&head);
        Frame { bytes, start }
    }

    #[inline]
    pub fn close(mut self) {
        let len = self.bytes.len() - self.start - 4;
        // A reply is made of parts that came in frames of at most 2 GiB; a listing of more children than fit is refused
        // by `read::children` before it is encoded.
        let len = i32::try_from(len).expect("a frame is shorter than 2 GiB");
        self.bytes[self.start..][..4].copy_from_slice(&len.to_be_bytes());
        self.start = self.bytes.len();
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        self.bytes.truncate(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_not_closed_never_was() {
        let mut out = b"before".to_vec();
        Frame::open(&mut out).bytes.extend(b"half a reply");
        assert_eq!(out, b"before");

        let frame = Frame::open(&mut out);
        frame.bytes.extend([7, 8]);
        frame.close();
        assert_eq!(out[6..], [0, 0, 0, 2, 7, 8]);
    }

    #[test]
    fn characters_outside_the_basic_plane_leave_as_surrogates() {
        let mut out = Vec::new();
        out.put_text("a\u{1f600}:x");
        assert_eq!(out, b"\0\0\0\x09a\xed\xa0\xbd\xed\xb8\x80:x");
        // Behind more ASCII than a word holds, and after a character of the basic plane.
        out.clear();
        out.put_text("/services/instance-\u{e9}-\u{1f600}");
        assert_eq!(out[4..], *b"/services/instance-\xc3\xa9-\xed\xa0\xbd\xed\xb8\x80");
        assert_eq!(out[..4], (out.len() as i32 - 4).to_be_bytes());
        out.clear();
        out.put_text("/services/instance-\u{e9}");
        assert_eq!(out[4..], *b"/services/instance-\xc3\xa9");
    }
}
