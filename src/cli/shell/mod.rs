//! `ostler shell`: the commands of zkCli, one at a time from a script or a prompt.
//!
//! Scripts parse what zkCli prints, so every text, its stream and the exit status are zkCli's; where this shell differs,
//! `docs/shell.md` says so. Results go to stdout, errors to stderr, watch events to stdout at any moment.
//!
//! Leaves to others: the protocol (`client`), what each command does (`commands` and the modules it names).
//!
//! Runs on: the main thread; events are printed by the client's thread.

mod access;
mod commands;
mod complete;
mod ensemble;
mod nodes;
mod options;
mod print;
mod quota;
pub mod words;
mod zone;
mod zone_rule;

use super::output;
use crate::client::{Client, Event, Options, State};
use crate::fatal::Fatal;
use commands::{Call, Failure, Outcome};
use rustyline::ExternalPrinter;
use rustyline::error::ReadlineError;
use std::cell::RefCell;
use std::io::{BufRead, IsTerminal, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zone::Zone;

/// Run one command of ZooKeeper's shell, or a prompt.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, disable_help_flag = true)]
pub struct ShellArgs {
    /// Options, then a command and its words; without a command, commands are read from a prompt or from stdin
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS] [COMMAND")]
    words: Vec<String>,
}

const EXAMPLES: &str = "\
Options:
  -server HOST:PORT,HOST:PORT/CHROOT   where to connect [default: localhost:2181]
  -timeout MS                          the session's timeout [default: 30000]
  -r                                   a server that takes no writes will do
  -waitforconnection                   wait for a connection before the first command
  -help                                this text

Examples:
  ostler shell
      a prompt, with completion of commands and paths
  ostler shell -server zk1,zk2/app get /config | tail -1
      one command, and its exit status: 0, 1 if it failed, 127 if there is no such command
  echo 'ls -R /' | ostler shell -server 127.0.0.1:2181
      commands from a file or a pipe

`ostler shell help` lists the commands.";

/// How the shell was called.
#[derive(Debug, PartialEq)]
struct Settings {
    connect: String,
    timeout_ms: u64,
    read_only: bool,
    wait: bool,
    help: bool,
    command: Vec<String>,
}

impl Settings {
    /// Errors: `Fatal::Usage`.
    fn read(words: &[String]) -> Result<Settings, Fatal> {
        let mut settings = Settings {
            connect: "localhost:2181".into(),
            timeout_ms: 30_000,
            read_only: false,
            wait: false,
            help: false,
            command: Vec::new(),
        };
        let usage = |problem: String| Fatal::Usage { problem };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                settings.command.push(word.clone());
                settings.command.extend(words.cloned());
                break;
            }
            let mut value = || words.next().cloned().ok_or_else(|| usage(format!("{word} needs a value")));
            match word.trim_start_matches('-') {
                "server" => settings.connect = value()?,
                "timeout" => {
                    let text = value()?;
                    settings.timeout_ms =
                        text.parse().map_err(|_| usage(format!("-timeout {text}: not a number of milliseconds")))?;
                }
                "r" => settings.read_only = true,
                "waitforconnection" => settings.wait = true,
                "client-configuration" => {
                    return Err(usage("-client-configuration: the shell has no TLS and no SASL yet".into()));
                }
                "help" | "h" => settings.help = true,
                // As zkCli: what it does not know before the command is passed over.
                _ => {}
            }
        }
        Ok(settings)
    }
}

/// Runs the shell; its exit status.
///
/// Errors: `Fatal::Usage` for options and connect strings that make no sense.
pub fn run(args: &ShellArgs) -> Result<u8, Fatal> {
    let settings = Settings::read(&args.words)?;
    if settings.help {
        out(format_args!("Usage: ostler shell [OPTIONS] [COMMAND [WORDS]]\n\n{EXAMPLES}\n"));
        return Ok(0);
    }
    out(format_args!("Connecting to {}\n", settings.connect));
    let session = Session::open(&settings)?;
    if settings.wait && !session.wait_connected() {
        err(format_args!("KeeperErrorCode = ConnectionLoss\n"));
        return Ok(1);
    }
    let session = Rc::new(RefCell::new(session));
    if !settings.command.is_empty() {
        let status = session.borrow_mut().execute(&settings.command).unwrap_or_else(|status| status);
        session.borrow_mut().leave();
        return Ok(status);
    }
    let terminal = std::io::stdin().is_terminal();
    out(format_args!("Welcome to ZooKeeper!\nJLine support is {}\n", if terminal { "enabled" } else { "disabled" }));
    let status = if terminal { prompt(&session) } else { read_stdin(&session) };
    session.borrow_mut().leave();
    Ok(status)
}

fn read_stdin(session: &Rc<RefCell<Session>>) -> u8 {
    let mut stdin = std::io::stdin().lock();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match stdin.read_until(b'\n', &mut bytes) {
            Ok(0) => return session.borrow().status,
            Ok(_) => {}
            Err(error) => {
                err(format_args!("standard input can't be read: {error}\n"));
                return 1;
            }
        }
        // What is not UTF-8 gets replacement characters, as in Java.
        let text = String::from_utf8_lossy(&bytes);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if let Err(status) = session.borrow_mut().line(line.strip_suffix('\r').unwrap_or(line)) {
            return status;
        }
    }
}

fn prompt(session: &Rc<RefCell<Session>>) -> u8 {
    let config = rustyline::Config::builder().completion_type(rustyline::CompletionType::List).build();
    let mut editor = match rustyline::Editor::<complete::Completer, _>::with_config(config) {
        Ok(editor) => editor,
        Err(error) => {
            err(format_args!("no line editing: {error}\n"));
            return read_stdin(session);
        }
    };
    editor.set_helper(Some(complete::Completer::new(session.clone())));
    let history = history_file();
    if let Some(file) = &history {
        // There is none the first time.
        let _ = editor.load_history(file);
    }
    if let Ok(printer) = editor.create_external_printer() {
        session.borrow().events.set_printer(Box::new(printer));
    }
    let status = loop {
        // So that the prompt after the start and after `connect` can say CONNECTED.
        session.borrow().client().map(|client| client.wait_connected(PROMPT_PATIENCE));
        let prompt = session.borrow().prompt();
        match editor.readline(&prompt) {
            Ok(line) => {
                if !line.trim().is_empty() {
                    let _ = editor.add_history_entry(&line);
                }
                if let Err(status) = session.borrow_mut().line(&line) {
                    break status;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(_) => break session.borrow().status,
        }
    };
    if let Some(file) = &history
        && let Err(error) = editor.save_history(file)
    {
        err(format_args!("{}: the history could not be kept: {error}\n", file.display()));
    }
    status
}

/// How long a prompt may wait for a connection.
const PROMPT_PATIENCE: Duration = Duration::from_millis(500);

/// `$OSTLER_HISTORY`, or a file in the home directory.
fn history_file() -> Option<std::path::PathBuf> {
    if let Some(file) = std::env::var_os("OSTLER_HISTORY") {
        return Some(file.into());
    }
    std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".ostler_history"))
}

/// Where watch events go: above the prompt while a line is being edited, else to stdout.
#[derive(Clone)]
struct Events {
    wanted: Arc<AtomicBool>,
    printer: Arc<Mutex<Option<Box<dyn ExternalPrinter + Send>>>>,
}

impl Events {
    fn new() -> Events {
        Events { wanted: Arc::new(AtomicBool::new(true)), printer: Arc::default() }
    }

    fn set_printer(&self, printer: Box<dyn ExternalPrinter + Send>) {
        *self.printer.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(printer);
    }

    fn show(&self, event: &Event) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let text = format!("\nWATCHER::\n\n{event}\n");
        let mut printer = self.printer.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let printed = printer.as_mut().is_some_and(|printer| printer.print(text.clone()).is_ok());
        if !printed {
            out(format_args!("{text}"));
        }
    }
}

/// What lasts from one command to the next.
struct Session {
    client: Option<Client>,
    connect: String,
    options: Options,
    events: Events,
    zone: Zone,
    /// Every line that was executed; its index is its number.
    history: Vec<String>,
    /// Of the last command.
    status: u8,
}

impl Session {
    fn open(settings: &Settings) -> Result<Session, Fatal> {
        let options = Options {
            connect: settings.connect.clone(),
            timeout: Duration::from_millis(settings.timeout_ms),
            read_only: settings.read_only,
        };
        let mut session = Session {
            client: None,
            connect: settings.connect.clone(),
            options,
            events: Events::new(),
            zone: Zone::local(),
            history: Vec::new(),
            status: 0,
        };
        session.connect(None).map_err(|failure| Fatal::Usage { problem: failure.text })?;
        Ok(session)
    }

    fn client(&self) -> Option<&Client> {
        self.client
            .as_ref()
            .filter(|client| !matches!(client.state(), State::Closed | State::AuthFailed | State::Expired))
    }

    fn wait_connected(&self) -> bool {
        let wait = self.options.timeout;
        self.client().is_some_and(|client| client.wait_connected(wait).is_connected())
    }

    /// Ends without closing the session, as zkCli does: its ephemerals live until its timeout.
    fn leave(&mut self) {
        if let Some(client) = self.client.take() {
            client.abandon();
        }
    }

    /// Closes the session, if there is one, and opens another.
    fn connect(&mut self, to: Option<&str>) -> Outcome {
        self.client = None;
        if let Some(to) = to {
            self.connect = to.into();
            self.options.connect = to.into();
        }
        let events = self.events.clone();
        let client = Client::open(self.options.clone(), move |event| events.show(event));
        self.client = Some(client.map_err(|error| Failure::new(error.to_string()))?);
        Ok(())
    }

    fn prompt(&self) -> String {
        let state = self.client.as_ref().map_or("CLOSED", |client| client.state().prompt_word());
        format!("[zk: {}({state}) {}] ", self.connect, self.history.len())
    }

    /// One line from a prompt or from stdin. `Err`: the shell ends with this status.
    fn line(&mut self, line: &str) -> Result<(), u8> {
        let words: Vec<String> = words::split(line).into_iter().map(|word| word.text).collect();
        if words.is_empty() {
            return Ok(());
        }
        self.history.push(line.to_owned());
        self.execute(&words).map(drop)
    }

    /// Runs one command and prints what went wrong. `Err`: the command was quit.
    fn execute(&mut self, words: &[String]) -> Result<u8, u8> {
        if words[0] == "quit" {
            self.client = None;
            return Err(self.status);
        }
        self.status = match self.command(words) {
            Ok(()) => 0,
            Err(failure) => {
                err(format_args!("{}\n", failure.text));
                failure.status
            }
        };
        Ok(self.status)
    }

    fn command(&mut self, words: &[String]) -> Outcome {
        let mut words = words.to_vec();
        if let Some((old, new)) = commands::OLD_FORMS.iter().find(|(old, _)| words[0] == *old) {
            words[0] = (*new).into();
            let instead = if *old == "ls2" { "ls [-s]" } else { new };
            err(format_args!("'{old} path' has been deprecated. Please use '{instead} path' instead.\n"));
            if *old == "ls2" {
                words.insert(1, "-s".into());
            }
        }
        let name = words[0].as_str();
        if name == "help" {
            err(format_args!("{}", commands::usage()));
            return Ok(());
        }
        let Some(command) = commands::find(name) else {
            let text = format!("{}Command not found: Command not found {name}", commands::usage());
            return Err(Failure { text, status: 127 });
        };
        let usage = format!("{}{}", command.usage_line(), command.explanation);
        let Some(run) = command.run else { return self.own_command(&words) };
        if self.client().is_none() {
            out(format_args!("Not connected\n"));
            return Ok(());
        }
        let given = options::parse(&words[1..], command.options).map_err(Failure::new)?;
        let version_with_words = name == "version" && !given.words.is_empty();
        if (given.words.len() < command.words && !given.has("?")) || version_with_words {
            return Err(Failure::new(usage));
        }
        let Some(client) = self.client() else { return Ok(()) };
        run(&Call { client, zone: &self.zone, given, usage })
    }

    /// The commands that change the shell itself.
    fn own_command(&mut self, words: &[String]) -> Outcome {
        let argument = words.get(1).map(String::as_str);
        match (words[0].as_str(), argument) {
            ("connect", to) => return self.connect(to),
            ("close", _) => match self.client() {
                Some(_) => self.client = None,
                None => out(format_args!("Not connected\n")),
            },
            ("printwatches", Some(word)) => self.events.wanted.store(word == "on", Ordering::Relaxed),
            ("printwatches", None) => {
                let word = if self.events.wanted.load(Ordering::Relaxed) { "on" } else { "off" };
                out(format_args!("printwatches is {word}\n"));
            }
            ("history", _) if self.history.is_empty() => out(format_args!("0 - null\n")),
            ("history", _) => {
                for (number, line) in self.history.iter().enumerate().skip(self.history.len().saturating_sub(11)) {
                    out(format_args!("{number} - {line}\n"));
                }
            }
            ("redo", Some(number)) => return self.redo(number),
            _ => {}
        }
        Ok(())
    }

    fn redo(&mut self, number: &str) -> Outcome {
        let bad = || Failure::new("Command index out of range");
        let number: i64 = number.parse().map_err(|_| Failure::new(format!("redo: {number:?} is not a number")))?;
        // The last line is this redo itself.
        let last = self.history.len().saturating_sub(1);
        let index = usize::try_from(number).ok().filter(|index| *index < last).ok_or_else(bad)?;
        let line = self.history[index].clone();
        let words: Vec<String> = words::split(&line).into_iter().map(|word| word.text).collect();
        if matches!(words[0].as_str(), "redo" | "history" | "quit") {
            return Err(Failure::new("No redoing redos"));
        }
        self.history[last] = line;
        self.command(&words)
    }
}

/// To stdout. What can't be written is no error: the command has happened.
fn out(text: std::fmt::Arguments<'_>) {
    let _ = output::print(text);
}

/// To stderr.
fn err(text: std::fmt::Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &str) -> Result<Settings, Fatal> {
        Settings::read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_come_before_the_command() {
        let read = settings("-server a:1,b/c -timeout 5 -r -unknown -waitforconnection ls -R /").unwrap();
        assert_eq!((read.connect.as_str(), read.timeout_ms, read.read_only, read.wait), ("a:1,b/c", 5, true, true));
        assert_eq!(read.command, ["ls", "-R", "/"]);
        assert_eq!(settings("").unwrap().connect, "localhost:2181");
    }

    #[test]
    fn options_without_a_value_that_makes_sense_are_refused() {
        for line in ["-server", "-timeout x", "-client-configuration f"] {
            assert_eq!(settings(line).unwrap_err().exit_status(), 2, "{line}");
        }
    }
}
