//! Completion at the prompt: commands by name, then paths from the server.
//!
//! Runs on: the shell's thread, while a line is being edited.

use super::{Session, commands, words};
use crate::client::Watch;
use rustyline::Context;
use rustyline::completion;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// How long a listing for completion may take before there is none.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(rustyline::Helper, rustyline::Hinter, rustyline::Highlighter, rustyline::Validator)]
pub struct Completer {
    session: Rc<RefCell<Session>>,
}

impl Completer {
    pub fn new(session: Rc<RefCell<Session>>) -> Completer {
        Completer { session }
    }

    /// Nothing where the server can't say.
    fn children(&self, path: &str) -> Vec<String> {
        let session = self.session.borrow();
        let Some(client) = session.client() else { return Vec::new() };
        client.get_children(path, Watch::No).wait_for(PATIENCE).map_or(Vec::new(), |(names, _)| names)
    }
}

impl completion::Completer for Completer {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(candidates(&line[..at], |path| self.children(path)))
    }
}

/// Where the word that ends `line` begins, and what it may become.
fn candidates(line: &str, children: impl Fn(&str) -> Vec<String>) -> (usize, Vec<String>) {
    let words = words::split(line);
    let ended = line.is_empty() || line.ends_with(char::is_whitespace);
    let (start, begun, first) = match words.last() {
        Some(last) if !ended => (last.start, last.text.as_str(), words.len() == 1),
        _ => (line.len(), "", words.is_empty()),
    };
    if first {
        let names = commands::COMMANDS.iter().map(|command| command.name);
        return (start, names.filter(|name| name.starts_with(begun)).map(str::to_owned).collect());
    }
    // A word in quotes is left alone: what would be inserted stands before its closing quote.
    let Some(slash) = begun.rfind('/').filter(|_| line[start..].starts_with('/')) else { return (start, Vec::new()) };
    let parent = if slash == 0 { "/" } else { &begun[..slash] };
    let mut names: Vec<String> =
        children(parent).into_iter().filter(|name| name.starts_with(&begun[slash + 1..])).collect();
    names.sort();
    let paths = names.iter().filter_map(|name| words::quote(&format!("{}{name}", &begun[..=slash])));
    (start, paths.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str) -> Vec<String> {
        let names: &[&str] = match path {
            "/" => &["app", "apple", "zookeeper"],
            "/app" => &["config", "locks"],
            "/quoted" => &["two words"],
            _ => &[],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn complete(line: &str) -> (usize, Vec<String>) {
        candidates(line, tree)
    }

    #[test]
    fn the_first_word_is_a_command() {
        assert_eq!(complete("getA"), (0, vec!["getAcl".into(), "getAllChildrenNumber".into()]));
        assert_eq!(complete("  quit").0, 2);
        assert_eq!(complete("").1.len(), commands::COMMANDS.len());
        assert_eq!(complete("zz").1, [""; 0]);
    }

    #[test]
    fn later_words_are_paths_of_the_server() {
        assert_eq!(complete("get /ap"), (4, vec!["/app".into(), "/apple".into()]));
        assert_eq!(complete("get -s /app/l"), (7, vec!["/app/locks".into()]));
        assert_eq!(complete("ls /app/").1, ["/app/config", "/app/locks"]);
        assert_eq!(complete("ls /quoted/").1, ["\"/quoted/two words\""]);
        assert_eq!(complete("ls /nope/").1, [""; 0]);
        assert_eq!(complete("create /app data").1, [""; 0]);
        assert_eq!(complete("get \"/ap\"").1, [""; 0]);
    }
}
