//! Programs in other languages that drive clients written for ZooKeeper: compiled, started, talked to, and ended.
//!
//! Runs on: the test's thread; two more for each program that is talked to read what it says.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::peers;
use crate::support::servers::{Kind, java_options, wait_for};

/// How long one program may take to its end, or with one answer.
const LIMIT: Duration = Duration::from_secs(240);

/// What the clients are tried with.
pub fn kind() -> Kind {
    match std::env::var("OSTLER_CLIENTS_AGAINST").as_deref() {
        Ok("java") => Kind::Java,
        _ => Kind::Ostler,
    }
}

pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a program to its end; what it said, errors first, if it ended well.
pub fn run(mut command: Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    // It may end before it has read everything; how it ended is what counts.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let (id, (over, ended)) = (child.id(), channel::<()>());
    // A client that hangs is ended, so that the test ends, and what it said until then is shown.
    let watchdog = std::thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        }
    });
    let output = child.wait_with_output().expect("our child");
    drop(over);
    watchdog.join().expect("it waits, no more");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{errors}", output.status);
    println!("{said}\n{errors}");
    format!("{errors}{said}")
}

pub fn java(classes: &Path, main: &str) -> Command {
    let mut options = java_options();
    if let Some(path) = options.last_mut() {
        *path = format!("{}:{path}", classes.display());
    }
    let mut command = Command::new("java");
    command.args(options).arg("-Dlog4j2.level=OFF").arg(main);
    command
}

/// Compiles one program of `tests/clients`, with what it uses there, against the jars.
pub fn compiled(name: &str) -> tempfile::TempDir {
    let classes = tempfile::tempdir().expect("a temporary folder");
    let jars = format!("{}/java/*", peers().display());
    let mut command = Command::new("javac");
    command.args(["-nowarn", "-cp", &jars, "-sourcepath"]).arg(source(""));
    command.arg("-d").arg(classes.path()).arg(source(name));
    run(command, "");
    classes
}

/// A program that answers each command with lines; the last begins with the command's own word.
pub struct Program {
    child: Child,
    /// Closed: nothing more will be asked.
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Program {
    pub fn start(mut command: Command) -> Program {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(send.send(line)))
        });
        let errors = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
        Program { child, stdin, lines, errors: Some(errors) }
    }

    /// Its whole answer. Panics with all that it said, if it has ended or keeps silent.
    pub fn ask(&mut self, command: &str) -> Vec<String> {
        // If it has ended, so has its output.
        let _ = writeln!(self.stdin.as_mut().expect("it is open"), "{command}");
        let word = command.split(' ').next().unwrap_or_default();
        let mut answer = Vec::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => {
                    let last = line.starts_with(word);
                    answer.push(line);
                    if last {
                        return answer;
                    }
                }
                Err(problem) => {
                    let errors = self.end();
                    panic!("{command}: {problem}, after {answer:?}\n{errors}");
                }
            }
        }
    }

    /// Nothing more to ask: it ends by itself, and well.
    pub fn finish(mut self) {
        self.stdin = None;
        let status = wait_for("the program's end", LIMIT, || self.child.try_wait().expect("our child"));
        assert!(status.success(), "{status}: {}", self.end());
    }

    /// Ends it; what it wrote to its standard error.
    fn end(&mut self) -> String {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.errors.take().map_or_else(String::new, |errors| errors.join().unwrap_or_default())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}
