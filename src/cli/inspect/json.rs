//! JSON objects, written a field at a time.

use std::fmt::Write;

/// One object, on one line.
pub struct Object(String);

impl Object {
    pub fn new() -> Object {
        Object("{".into())
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        quote(name, &mut self.0);
        self.0.push(':');
    }

    /// A string.
    pub fn text(mut self, name: &str, value: &str) -> Object {
        self.name(name);
        quote(value, &mut self.0);
        self
    }

    /// A number, `true`, `false`, `null`, or anything that is JSON already.
    pub fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Object {
        self.name(name);
        let _ = write!(self.0, "{value}");
        self
    }

    /// A number that has to come through readers who take all numbers for floating-point: hexadecimal, as text.
    pub fn hex(mut self, name: &str, value: u64) -> Object {
        self.name(name);
        let _ = write!(self.0, "\"{value:#x}\"");
        self
    }

    /// The line.
    pub fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// An array of things that are JSON already.
pub fn array(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

/// A string as JSON.
pub fn string(text: &str) -> String {
    let mut out = String::new();
    quote(text, &mut out);
    out
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 || (0x7f..0xa0).contains(&(c as u32)) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_one_string_on_one_line() {
        let line = Object::new().text("a\"b", "\\ \n\u{1}\u{85}\u{1f600}").raw("n", -1).hex("z", u64::MAX).end();
        assert_eq!(line, "{\"a\\\"b\":\"\\\\ \\n\\u0001\\u0085\u{1f600}\",\"n\":-1,\"z\":\"0xffffffffffffffff\"}");
        assert_eq!(array([string("x"), "1".into()]), "[\"x\",1]");
        assert_eq!(Object::new().end(), "{}");
    }
}
