//! Four-letter words: questions that an operator asks with `nc`, and monitoring agents a thousand times a day.
//!
//! The answers are parsed, by regular expressions written against ZooKeeper. So they are ZooKeeper's to the byte, and a
//! status struct (`status.rs`) holds what they are made of: who serves clients fills it in, this module makes text
//! of it and knows no thread, no socket and no tree.
//!
//! Promises: text ends with or without a newline exactly as ZooKeeper's does; nothing here blocks. Leaves to others:
//! recognising the four bytes at the start of a connection, gathering a status, closing afterwards.
//!
//! Runs on: whichever thread answers.

mod environment;
mod java;
mod mntr;
pub mod status;
#[cfg(test)]
mod tests;
mod text;
mod whitelist;
mod words;

pub use environment::{Environment, VERSION};
pub use java::{civil, java_date, java_double};
pub use mntr::mntr;
pub use text::{conf, cons, dirs, dump, envi, hash, isro, srvr, stat, wchc, wchp, wchs};
pub use whitelist::Whitelist;
pub use words::Word;

/// What `ruok` is answered, by a server that serves and by one that doesn't.
pub const RUOK: &str = "imok";
/// What `crst` is answered after the numbers of all connections were set back.
pub const CRST: &str = "Connection stats reset.\n";
/// What `srst` is answered after `Metrics::reset`.
pub const SRST: &str = "Server stats reset.\n";
/// What a server that is up and doesn't serve says to most words.
pub const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";

/// The trace mask until `stmk` sets another: which kinds of lines ZooKeeper's own trace would have.
pub const TRACE_MASK: i64 = 306;

/// What `gtmk` is answered, and `stmk` with the mask it was given.
pub fn trace_mask(mask: i64) -> String {
    mask.to_string()
}

/// What is answered without asking anybody: whoever watches over the server has to get it however busy everything else is.
pub fn at_once(word: Word, serving: bool) -> Option<&'static str> {
    match word {
        Word::Ruok => Some(RUOK),
        Word::Isro if serving => Some(isro(status::Mode::Standalone)),
        Word::Isro => not_serving(word),
        _ => None,
    }
}

/// What a word is answered that is not on the list.
pub fn refusal(word: Word) -> String {
    format!("{} is not executed because it is not in the whitelist.\n", word.name())
}

/// What a server says to a word while it doesn't serve. `None`: the word is answered as always.
pub fn not_serving(word: Word) -> Option<&'static str> {
    match word {
        Word::Ruok | Word::Envi | Word::Gtmk | Word::Stmk => None,
        Word::Isro => Some("null"),
        // Without the newline, alone of all.
        Word::Hash => Some("This ZooKeeper instance is not currently serving requests"),
        _ => Some(NOT_SERVING),
    }
}
