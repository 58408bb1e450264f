//! Options of the shell's commands, read as zkCli reads them: before and after the words, grouped (`-sw`), with a value
//! glued or apart.
//!
//! Runs on: the shell's thread; pure.

/// The options that a command knows: a letter or a name, and whether a value follows.
pub type Known = &'static [(&'static str, bool)];

/// What a command was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given {
    options: Vec<(&'static str, String)>,
    /// The words that are no options; the command's own name is not among them.
    pub words: Vec<String>,
}

impl Given {
    pub fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(option, _)| *option == name)
    }

    /// The value of the first `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(option, _)| *option == name).map(|(_, value)| value.as_str())
    }

    /// All values of `name`, joined with commas; `None` if there are none.
    pub fn values(&self, name: &str) -> Option<String> {
        let values: Vec<&str> =
            self.options.iter().filter(|(option, _)| *option == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(","))
    }

    pub fn word(&self, index: usize) -> Option<&str> {
        self.words.get(index).map(String::as_str)
    }
}

/// Errors: the text that zkCli prints.
pub fn parse(arguments: &[String], known: Known) -> Result<Given, String> {
    const PACKAGE: &str = "org.apache.commons.cli";
    let mut given = Given::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            given.words.extend(arguments.cloned());
            break;
        }
        let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty() && !is_number(argument)) else {
            given.words.push(argument.clone());
            continue;
        };
        let unknown = || format!("{PACKAGE}.UnrecognizedOptionException: Unrecognized option: {argument}");
        let body = body.strip_prefix('-').unwrap_or(body);
        let mut value_of = |name: &'static str, glued: &str| {
            let value = if glued.is_empty() {
                arguments
                    .next()
                    .cloned()
                    .ok_or_else(|| format!("{PACKAGE}.MissingArgumentException: Missing argument for option: {name}"))?
            } else {
                glued.strip_prefix('=').unwrap_or(glued).to_owned()
            };
            Ok::<_, String>((name, value))
        };
        if let Some((name, takes)) = known.iter().find(|(name, _)| *name == body) {
            given.options.push(if *takes { value_of(name, "")? } else { (name, String::new()) });
            continue;
        }
        let mut rest = body;
        while let Some(letter) = rest.chars().next() {
            let name = &rest[..letter.len_utf8()];
            rest = &rest[letter.len_utf8()..];
            let (name, takes) = *known.iter().find(|(known, _)| *known == name).ok_or_else(unknown)?;
            if takes {
                given.options.push(value_of(name, rest)?);
                break;
            }
            given.options.push((name, String::new()));
        }
    }
    Ok(given)
}

/// A negative number is a word, not an option.
fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(line: &str, known: Known) -> Result<Given, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), known)
    }

    #[test]
    fn options_stand_anywhere_and_in_groups() {
        let known: Known = &[("s", false), ("w", false), ("v", true), ("members", true)];
        let parsed = given("-sw /a -v 7 x -members m", known).unwrap();
        assert!(parsed.has("s") && parsed.has("w"));
        assert_eq!((parsed.value("v"), parsed.value("members")), (Some("7"), Some("m")));
        assert_eq!(parsed.words, ["/a", "x"]);
        assert_eq!(given("-v7 -v 8", known).unwrap().values("v").as_deref(), Some("7,8"));
        assert_eq!(given("-v -3 -7", known).unwrap().words, ["-7"]);
        assert_eq!(given("-- -s -", known).unwrap().words, ["-s", "-"]);
    }

    #[test]
    fn what_is_not_known_is_named_as_zkcli_names_it() {
        let error = given("-z /a", &[("s", false)]).unwrap_err();
        assert_eq!(error, "org.apache.commons.cli.UnrecognizedOptionException: Unrecognized option: -z");
        let error = given("-v", &[("v", true)]).unwrap_err();
        assert_eq!(error, "org.apache.commons.cli.MissingArgumentException: Missing argument for option: v");
    }
}
