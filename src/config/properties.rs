//! Java's `.properties` format, because that is what a `zoo.cfg` is.
//!
//! Splitting lines at `=` reads most files and fails on the rest: `key : value`, a blank as the separator, escaped
//! colons, `\u0041`, values continued over lines. So this follows the rules of `java.util.Properties.load`, including
//! its reading of bytes as ISO-8859-1: a path with an umlaut names the same directory here as it did there.
//!
//! Promises: entries in the order of the file, each with the number of the line it begins on; never panics; time and
//! memory are linear in the input. Leaves to others: what keys mean, and which of two equal keys wins (the last).
//!
//! Runs on: the starting thread.

/// One logical line of the file. Key and value are not trimmed beyond what the format says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub key: String,
    pub value: String,
    /// The natural line that the entry begins on, from 1.
    pub line: usize,
}

/// Why a file can't be read, and on which line (from 1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    pub line: usize,
    pub problem: String,
}

/// Reads a whole file.
///
/// Errors: a NUL byte (written or escaped), and `\u` without four hexadecimal digits, which Java refuses as well.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut entries = Vec::new();
    let mut lines = NaturalLines { bytes, at: 0, number: 0 };
    let mut logical = Vec::new();
    let mut begins = 0;
    while let Some((number, natural)) = lines.next_line() {
        let natural = skip_blanks(natural);
        if logical.is_empty() {
            // Also where a line of nothing but a backslash came before: Java doesn't see a beginning in it.
            if matches!(natural.first(), None | Some(b'#' | b'!')) {
                continue;
            }
            begins = number;
        }
        logical.extend_from_slice(natural);
        if continues(&logical) {
            logical.pop();
        } else {
            entries.push(split(&logical, begins)?);
            logical.clear();
        }
    }
    if !logical.is_empty() {
        entries.push(split(&logical, begins)?);
    }
    Ok(entries)
}

struct NaturalLines<'a> {
    bytes: &'a [u8],
    at: usize,
    number: usize,
}

impl<'a> NaturalLines<'a> {
    /// The next line without its end (`\n`, `\r` or both) and its number.
    fn next_line(&mut self) -> Option<(usize, &'a [u8])> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        let end = match &rest[length..] {
            [b'\r', b'\n', ..] => 2,
            [_, ..] => 1,
            [] => 0,
        };
        self.at += length + end;
        self.number += 1;
        Some((self.number, &rest[..length]))
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0c)
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| is_blank(**byte)).count();
    &line[blanks..]
}

/// An odd number of backslashes at the end: the last one is not itself escaped.
fn continues(line: &[u8]) -> bool {
    line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

fn split(line: &[u8], number: usize) -> Result<Entry, Malformed> {
    if line.contains(&0) {
        return Err(Malformed { line: number, problem: "a NUL byte; this is not a text file".into() });
    }
    let mut key_end = line.len();
    let mut escaped = false;
    for (at, byte) in line.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if *byte == b'\\' {
            escaped = true;
        } else if matches!(byte, b'=' | b':') || is_blank(*byte) {
            key_end = at;
            break;
        }
    }
    let (key, rest) = line.split_at(key_end);
    let rest = skip_blanks(rest);
    let value = match rest {
        [b'=' | b':', value @ ..] => skip_blanks(value),
        value => value,
    };
    let entry = Entry { key: unescape(key, number)?, value: unescape(value, number)?, line: number };
    if entry.key.contains('\0') || entry.value.contains('\0') {
        return Err(Malformed { line: number, problem: "an escaped NUL character".into() });
    }
    Ok(entry)
}

fn unescape(raw: &[u8], line: usize) -> Result<String, Malformed> {
    // UTF-16 in between, since two `\u` escapes may be the halves of one character.
    let mut units: Vec<u16> = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            units.push(byte as u16);
            continue;
        }
        match bytes.next() {
            None => {}
            Some(b't') => units.push(b'\t' as u16),
            Some(b'n') => units.push(b'\n' as u16),
            Some(b'r') => units.push(b'\r' as u16),
            Some(b'f') => units.push(0x0c),
            Some(b'u') => {
                let mut unit = 0u16;
                for _ in 0..4 {
                    let digit = bytes.next().and_then(|digit| (digit as char).to_digit(16));
                    let Some(digit) = digit else {
                        return Err(Malformed { line, problem: "Malformed \\uxxxx encoding.".into() });
                    };
                    unit = unit << 4 | digit as u16;
                }
                units.push(unit);
            }
            Some(other) => units.push(other as u16),
        }
    }
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap().into_iter().map(|entry| (entry.key, entry.value)).collect()
    }

    #[test]
    fn every_separator_that_java_knows_is_read() {
        for text in ["a=b", "a:b", "a b", "a = b", "a\t:\t b", "  a=b", "\x0ca  =b"] {
            assert_eq!(pairs(text), [("a".into(), "b".into())], "{text:?}");
        }
        assert_eq!(pairs("a==b"), [("a".into(), "=b".into())], "only one separator is taken away");
        assert_eq!(pairs("a"), [("a".into(), "".into())]);
        assert_eq!(pairs("=b"), [("".into(), "b".into())]);
        assert_eq!(pairs("a=b  "), [("a".into(), "b  ".into())], "blanks at the end belong to the value");
    }

    #[test]
    fn comments_blank_lines_and_all_line_ends_are_skipped() {
        assert_eq!(pairs("# a=1\n\n  ! b=2\r\r\nc=3\rd=4"), [("c".into(), "3".into()), ("d".into(), "4".into())]);
    }

    #[test]
    fn a_backslash_continues_a_line_unless_it_is_escaped() {
        assert_eq!(pairs("a=1,\\\n   2,\\\r\n\t3"), [("a".into(), "1,2,3".into())]);
        assert_eq!(pairs("a=1\\\\\nb=2"), [("a".into(), "1\\".into()), ("b".into(), "2".into())]);
        assert_eq!(pairs("a=1\\\n#2"), [("a".into(), "1#2".into())], "a continuation is never a comment");
        assert_eq!(pairs("a=1\\"), [("a".into(), "1".into())]);
        assert_eq!(pairs("\\\n#2\nb=3"), [("b".into(), "3".into())], "nothing was begun that could be continued");
    }

    #[test]
    fn escapes_are_resolved_in_keys_and_values() {
        assert_eq!(pairs(r"a\:b\=c\ d=e"), [("a:b=c d".into(), "e".into())]);
        assert_eq!(pairs(r"a=\t\n\q\u0041\ud83d\ude00"), [("a".into(), "\t\nqA\u{1f600}".into())]);
        assert_eq!(pairs(r"a=\ud83d"), [("a".into(), "\u{fffd}".into())]);
    }

    #[test]
    fn bytes_are_read_as_latin_1() {
        assert_eq!(parse(b"a=\xe4").unwrap()[0].value, "\u{e4}");
    }

    #[test]
    fn what_java_refuses_is_refused_with_its_line() {
        assert_eq!(parse(b"a=1\n\nb=\\u00g1").unwrap_err().line, 3);
        assert_eq!(parse(b"a=1\nb=\\u12").unwrap_err().problem, "Malformed \\uxxxx encoding.");
        assert_eq!(parse(b"a=1\nb=x\0y").unwrap_err().line, 2);
        assert_eq!(parse(b"b=\\u0000").unwrap_err().line, 1);
    }

    #[test]
    fn the_line_of_an_entry_is_where_it_begins() {
        let entries = parse(b"# c\na=1\\\n2\\\n3\nb=4\n").unwrap();
        assert_eq!(entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [2, 5]);
    }

    proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_input_of_special_characters_makes_the_parser_panic(text in "[a=: \\\\u0\n\r#!\t]{0,80}") {
            let _ = parse(text.as_bytes());
        }
    }
}
