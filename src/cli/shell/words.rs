//! A line of the shell into words, by zkCli's rules, which scripts rely on.
//!
//! A word that begins with a single or double quote goes to the next such quote and may hold blanks; there is no escape. A
//! quote inside a word is a character like any other; one that is never closed is skipped.
//!
//! Runs on: any thread; pure.

/// A word, and where it stands in the line (quotes included).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub start: usize,
}

/// The words of `line`, in order.
pub fn split(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(first) = line[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let rest = &line[at..];
        if first == '"' || first == '\'' {
            match rest[1..].find(first) {
                Some(len) => {
                    words.push(Word { text: rest[1..1 + len].into(), start: at });
                    at += len + 2;
                }
                None => at += 1,
            }
            continue;
        }
        let len = rest.find(char::is_whitespace).unwrap_or(rest.len());
        words.push(Word { text: rest[..len].into(), start: at });
        at += len;
    }
    words
}

/// Writes `word` so that `split` reads it back; `None` if no quoting can (it holds both kinds of quotes and blanks).
pub fn quote(word: &str) -> Option<String> {
    let plain = !word.is_empty() && !word.starts_with(['"', '\'']) && !word.contains(char::is_whitespace);
    if plain {
        return Some(word.into());
    }
    ['"', '\''].iter().find(|mark| !word.contains(**mark)).map(|mark| format!("{mark}{word}{mark}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(line: &str) -> Vec<String> {
        split(line).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn quotes_hold_words_together_only_where_a_word_begins() {
        assert_eq!(texts("  create /a  \"two  words\" x "), ["create", "/a", "two  words", "x"]);
        assert_eq!(texts("set /a 'it is' \"it's\""), ["set", "/a", "it is", "it's"]);
        assert_eq!(texts("set /i1 mid\"dle quo\"ted"), ["set", "/i1", "mid\"dle", "quo\"ted"]);
        assert_eq!(texts("create /a ''"), ["create", "/a", ""]);
        assert_eq!(texts("\"a\"b"), ["a", "b"]);
        assert_eq!(texts("get 'a b"), ["get", "a", "b"], "an open quote is skipped, as zkCli does");
        assert_eq!(texts("   "), [""; 0]);
    }

    proptest! {
        #[test]
        fn quoted_words_are_read_back(words in prop::collection::vec("[a-zé/ \"']{0,6}", 0..6)) {
            let quoted: Vec<(String, String)> =
                words.into_iter().filter_map(|word| quote(&word).map(|quoted| (word, quoted))).collect();
            let line = quoted.iter().map(|(_, quoted)| quoted.as_str()).collect::<Vec<_>>().join(" ");
            let expected: Vec<String> = quoted.into_iter().map(|(word, _)| word).collect();
            prop_assert_eq!(texts(&line), expected);
        }

        #[test]
        fn any_line_can_be_split_and_words_stand_where_they_say(line in "\\PC{0,40}") {
            for word in split(&line) {
                prop_assert!(line[word.start..].trim_start_matches(['"', '\'']).starts_with(&word.text)
                    || word.text.is_empty() || word.text.starts_with(['"', '\'']));
            }
        }
    }
}
