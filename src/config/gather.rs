//! Brings together what was said about each key: in the file, on the command line, in `SERVER_JVMFLAGS` and `JVMFLAGS`.
//!
//! ZooKeeper keeps two worlds: keys that it reads from the file by name, and Java properties, into which every other
//! line of the file goes as `zookeeper.key`. Some properties have no such prefix and so can't be set in the file at
//! all, though people do. Here both worlds end in one table by key; where that changes what a setting does, a notice
//! says so (and `ostler.strictProperties=true` takes it back).
//!
//! Order, later wins: SERVER_JVMFLAGS, JVMFLAGS, command line, file. Within each the last of two equal keys wins.
//!
//! Runs on: the starting thread.

use super::keys::{self, Does, Key, Place};
use super::properties::Entry;
use super::{Level, Notice, Sources};
use crate::random::FastMap;

/// Where a value was given; makes the place in messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// Line of the file.
    Line(usize),
    /// A `-D`; the text says where it stood.
    Define(&'static str),
}

/// A value as it was written, trimmed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Given {
    pub value: String,
    pub origin: Origin,
}

/// All keys that were given, by ZooKeeper's name without prefix.
#[derive(Default)]
pub(super) struct Gathered {
    values: FastMap<String, Given>,
    /// In the order of first mention, so that notices come in the order of the file.
    order: Vec<String>,
}

impl Gathered {
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.values.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Given)> {
        self.order.iter().filter_map(|name| self.values.get(name).map(|given| (name.as_str(), given)))
    }

    fn set(&mut self, name: &str, value: &str, origin: Origin) {
        let given = Given { value: value.to_owned(), origin };
        if self.values.insert(name.to_owned(), given).is_none() {
            self.order.push(name.to_owned());
        }
    }
}

pub(super) fn gather(sources: &Sources, entries: &[Entry], notices: &mut Vec<Notice>) -> Gathered {
    let mut gathered = Gathered::default();
    let defines = all_defines(sources, notices);
    let strict = is_strict(&defines, entries);
    for (origin, name, value) in &defines {
        define(&mut gathered, origin, name.trim(), value, strict, notices);
    }
    let mut seen: FastMap<&str, usize> = FastMap::default();
    for entry in entries {
        let name = entry.key.trim_matches(is_java_blank);
        if let Some(first) = seen.insert(name, entry.line) {
            let text = format!("{name} is set in line {first} and again in line {}; the last one counts", entry.line);
            notices.push(Notice::new(Level::Warn, text));
        }
        line(&mut gathered, entry.line, name, entry.value.trim_matches(is_java_blank), strict, notices);
    }
    gathered
}

/// What `String.trim` of Java takes away.
fn is_java_blank(c: char) -> bool {
    c <= ' '
}

fn all_defines(sources: &Sources, notices: &mut Vec<Notice>) -> Vec<(&'static str, String, String)> {
    let mut defines = Vec::new();
    for (variable, flags) in [("SERVER_JVMFLAGS", &sources.server_jvm_flags), ("JVMFLAGS", &sources.jvm_flags)] {
        for flag in split_flags(flags.as_deref().unwrap_or_default()) {
            match flag.strip_prefix("-D") {
                Some(define) => {
                    let (name, value) = split_define(define);
                    defines.push((variable, name.to_owned(), value.to_owned()));
                }
                None => {
                    let text = format!("{variable}: {flag} is for a JVM and has no effect");
                    notices.push(Notice::new(Level::Info, text));
                }
            }
        }
    }
    for define in &sources.defines {
        let (name, value) = split_define(define);
        defines.push(("command line", name.to_owned(), value.to_owned()));
    }
    defines
}

/// `name=value`; a name alone has an empty value, as Java has it.
fn split_define(define: &str) -> (&str, &str) {
    define.split_once('=').unwrap_or((define, ""))
}

fn is_strict(defines: &[(&'static str, String, String)], entries: &[Entry]) -> bool {
    let on_file = entries.iter().rev().find(|entry| entry.key.trim() == "ostler.strictProperties");
    let on_line = defines.iter().rev().find(|(_, name, _)| name == "ostler.strictProperties");
    let value = on_file.map(|entry| entry.value.trim()).or(on_line.map(|(_, _, value)| value.as_str()));
    value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Splits a variable as a shell would: blanks separate, quotes and backslashes keep them.
fn split_flags(text: &str) -> Vec<String> {
    let mut flags = Vec::new();
    let mut flag = String::new();
    let mut inside = false;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                inside = true;
            }
            (None | Some('"'), '\\') => {
                flag.extend(chars.next());
                inside = true;
            }
            (None, c) if c.is_whitespace() => {
                if inside {
                    flags.push(std::mem::take(&mut flag));
                }
                inside = false;
            }
            (_, c) => {
                flag.push(c);
                inside = true;
            }
        }
    }
    if inside {
        flags.push(flag);
    }
    flags
}

/// One `-D`.
fn define(
    gathered: &mut Gathered,
    origin: &'static str,
    name: &str,
    value: &str,
    strict: bool,
    notices: &mut Vec<Notice>,
) {
    let mut say = |level, text: String| notices.push(Notice::new(level, format!("{origin}: -D{name} {text}")));
    let (plain, prefixed) = match name.strip_prefix("zookeeper.") {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    let Some(key) = keys::find(plain) else {
        match (prefixed, keys::find_near(plain)) {
            (true, Some(near)) => say(Level::Warn, format!("is unknown; -Dzookeeper.{near} is known")),
            (true, None) => say(Level::Warn, "is unknown and has no effect".into()),
            (false, Some(near)) => say(Level::Warn, format!("is unknown; did you mean {}?", spelled(near))),
            (false, None) => say(Level::Info, "is for a JVM and has no effect".into()),
        }
        return;
    };
    // `zookeeper.observer.syncEnabled` and others have longer property names than keys; the table has those names.
    match (key.place, prefixed) {
        (Place::Property | Place::Both, true) | (Place::Bare | Place::Both, false) => {}
        (Place::Bare, true) if strict => return say(Level::Info, format!("has no effect; -D{plain} has")),
        (Place::Bare, true) => say(Level::Info, format!("is taken as -D{plain}; ZooKeeper would ignore it")),
        (Place::File, _) => return say(Level::Warn, "has no effect; this key is read from the file only".into()),
        (Place::Property, false) => return say(Level::Warn, format!("has no effect; -Dzookeeper.{plain} has")),
    }
    gathered.set(plain, value, Origin::Define(origin));
}

/// How a key is written as a `-D`.
fn spelled(name: &str) -> String {
    match keys::find(name).map(|key| key.place) {
        Some(Place::Property) => format!("-Dzookeeper.{name}"),
        Some(Place::File) => format!("{name} in the file"),
        _ => format!("-D{name}"),
    }
}

/// One line of the file.
fn line(gathered: &mut Gathered, number: usize, name: &str, value: &str, strict: bool, notices: &mut Vec<Notice>) {
    let mut say = |level, text: String| notices.push(Notice::new(level, format!("line {number}: {name} {text}")));
    let stripped = name.strip_prefix("zookeeper.").filter(|plain| keys::find(plain).is_some());
    if let Some(plain) = stripped {
        if strict {
            return say(Level::Info, format!("has no effect; {plain} has"));
        }
        say(Level::Info, format!("is taken as {plain}; ZooKeeper would ignore it"));
    }
    let plain = stripped.unwrap_or(name);
    let Some(key) = keys::find(plain).or_else(|| keys::find_alias(plain)) else {
        match keys::find_near(plain) {
            Some(near) => say(Level::Warn, format!("is unknown and has no effect; {near} is known")),
            None => say(Level::Warn, "is unknown and has no effect".into()),
        }
        return;
    };
    if key.place == Place::Bare && stripped.is_none() && matches!(key.does, Does::Used) {
        if strict {
            return say(Level::Info, format!("has no effect in a file; -D{plain} has"));
        }
        say(Level::Info, format!("counts, though in ZooKeeper only -D{plain} would"));
    }
    gathered.set(canonical(key, plain), value, Origin::Line(number));
}

/// An alias under its key's name; a member of a family under its own.
fn canonical<'a>(key: &'static Key, name: &'a str) -> &'a str
where
    'static: 'a,
{
    if keys::find_alias(name).is_some_and(|aliased| aliased == key) { key.name } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jvm_flags_are_split_as_a_shell_would() {
        assert_eq!(
            split_flags(r#" -Xmx1g  -Da="b c" '-De=f g' -Dh\ i=j "#),
            ["-Xmx1g", "-Da=b c", "-De=f g", "-Dh i=j"]
        );
        assert_eq!(split_flags("\"\""), [""]);
        assert_eq!(split_flags("-Da=\"unclosed x"), ["-Da=unclosed x"]);
        assert_eq!(split_flags("\\"), [""]);
    }
}
