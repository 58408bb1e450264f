//! Servers as child processes: ostler, or Apache ZooKeeper out of the jars that `tools/peers.sh` brings.
//!
//! Ports are looked for: bound, released, and handed to the server. Another process may take one in between; then the start
//! fails and another port is tried.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ostler::clock;
use tempfile::TempDir;

use super::{conn, peers};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Apache ZooKeeper 3.9.5.
    Java,
    /// Apache ZooKeeper 3.8.0, Debian's.
    OldJava,
    Ostler,
}

/// What a server is started with, beside its folder and port.
#[derive(Clone, Default)]
pub struct Options {
    /// Lines of zoo.cfg.
    pub config: Vec<String>,
    /// `-Dname=value`, without the `-D`.
    pub properties: Vec<String>,
    /// A program to run the server under, with its arguments (strace).
    pub under: Vec<String>,
}

pub struct Server {
    pub kind: Kind,
    pub port: u16,
    pub folder: TempDir,
    options: Options,
    child: Option<Child>,
}

/// The secret of the super user that `Options::usual` configures: the auth text is `super:secret`.
pub const SUPER_DIGEST: &str = "super:lK75jTNcA+U9vtVEw5vB51mj/w4=";

impl Options {
    /// The settings that the oracle and the client tests share.
    pub fn usual() -> Options {
        let config = [
            "tickTime=2000",
            "maxClientCnxns=0",
            "extendedTypesEnabled=true",
            "4lw.commands.whitelist=*",
            "admin.enableServer=false",
        ];
        let properties = [format!("zookeeper.DigestAuthenticationProvider.superDigest={SUPER_DIGEST}")];
        Options { config: config.map(String::from).into(), properties: properties.into(), under: Vec::new() }
    }
    pub fn with(mut self, line: &str) -> Options {
        self.config.push(line.into());
        self
    }
    pub fn property(mut self, property: &str) -> Options {
        self.properties.push(property.into());
        self
    }
}

impl Server {
    /// Starts a server on an empty folder and waits until it serves.
    pub fn start(kind: Kind, options: &Options) -> Server {
        for _ in 0..5 {
            let folder = tempfile::Builder::new().prefix("ostler-test-").tempdir().expect("a temporary folder");
            let mut server = Server { kind, port: free_port(), folder, options: options.clone(), child: None };
            if server.launch() {
                return server;
            }
            let log = server.log();
            if !log.to_lowercase().contains("address already in use") {
                panic!("{kind:?} did not start:\n{log}");
            }
        }
        panic!("no free port in five tries");
    }

    /// Starts it again on the same folder and port; how long that took until it served.
    pub fn restart(&mut self) -> Duration {
        assert!(self.child.is_none());
        let before = clock::now();
        if !self.launch() {
            panic!("{:?} did not start again:\n{}", self.kind, self.log());
        }
        clock::now().since(before)
    }

    /// kill -9, and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; `wait` then says so.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for its end; the exit status.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("a running server");
        let id = child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill is there");
        assert!(sent.success());
        wait_for("the server's end", Duration::from_secs(20), || child.try_wait().expect("our child"))
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The end of what the server wrote to its standard outputs.
    pub fn log(&self) -> String {
        let text = fs::read(self.folder.path().join("server.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<String> = text.lines().map(|line| line.chars().take(300).collect()).collect();
        lines[lines.len().saturating_sub(45)..].join("\n")
    }

    fn launch(&mut self) -> bool {
        let config = self.folder.path().join("zoo.cfg");
        let mut text =
            format!("dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n", self.data().display(), self.port);
        text.push_str(more_than_one_core(self.kind));
        for line in &self.options.config {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(&config, text).expect("zoo.cfg is written");
        let log = File::options().create(true).append(true).open(self.folder.path().join("server.log"));
        let log = log.expect("server.log is opened");
        let mut command = command(self.kind, &self.options, &config);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        command.current_dir(self.folder.path());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.child = Some(child);
        let (port, kind) = (self.port, self.kind);
        let child = self.child.as_mut().expect("just set");
        // `Some(false)`: it ended instead.
        let serving = wait_for(&format!("{kind:?} to serve"), Duration::from_secs(40), || {
            if let Ok(Some(_)) = child.try_wait() {
                return Some(false);
            }
            let answer = conn::word_within(Duration::from_millis(300), port, "srvr").ok()?;
            answer.contains("Mode:").then_some(true)
        });
        if !serving {
            self.child = None;
        }
        serving
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the log of {:?} on port {}\n{}", self.kind, self.port, self.log());
        }
        self.kill();
    }
}

/// What runs a server on this configuration.
pub fn command(kind: Kind, options: &Options, config: &Path) -> Command {
    let mut words: Vec<String> = options.under.clone();
    let properties = options.properties.iter().map(|property| format!("-D{property}"));
    match kind {
        Kind::Ostler => {
            words.push(ostler());
            words.push("server".into());
            words.extend(properties);
        }
        Kind::Java | Kind::OldJava => {
            words.push("java".into());
            words.extend(if kind == Kind::Java { java_options() } else { old_java_options() });
            words.extend(properties);
            words.push("org.apache.zookeeper.server.quorum.QuorumPeerMain".into());
        }
    }
    words.push(config.display().to_string());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    // What the machine's owner set for a server of his own is not meant for these.
    command.env_remove("SERVER_JVMFLAGS").env_remove("JVMFLAGS");
    command
}

/// The program under test: this build's, or the one that OSTLER_BIN names.
pub fn ostler() -> String {
    std::env::var("OSTLER_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ostler").into())
}

/// What every JVM of these tests gets: the class path, few threads, a log that shows warnings only.
pub fn java_options() -> Vec<String> {
    let jars = peers().join("java");
    assert!(jars.join("zookeeper-3.9.5.jar").exists(), "no ZooKeeper in {}: run tools/peers.sh", jars.display());
    let log = format!("-Dlog4j2.configurationFile={}", jars.join("log4j2.properties").display());
    let path = format!("{}/*", jars.display());
    ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.disableJmx=true", &log, "-cp", &path]
        .map(String::from)
        .into()
}

/// The same for 3.8.0.
pub fn old_java_options() -> Vec<String> {
    let jars = ["zookeeper-3.8.0", "slf4j-simple", "snappy-java", "metrics-core"];
    let jars = jars.map(|name| format!("/usr/share/java/{name}.jar"));
    for jar in &jars {
        assert!(Path::new(jar).exists(), "no {jar}: run tools/peers.sh");
    }
    let level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
    ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", level, "-cp", &jars.join(":")].map(String::from).into()
}

/// A port below those from which the kernel serves connections: while a server is away, nobody may be given its port by
/// chance.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let port = 12_000 + ((std::process::id() % 400) * 50 + number) % 20_000;
        if TcpListener::bind(("127.0.0.1", port as u16)).is_ok() {
            return port as u16;
        }
    }
}

/// Asks again and again until there is an answer. Only for what can't tell us by itself: the state of another process.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = clock::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(clock::now().since(begin) < limit, "waited {limit:?} for {what}");
        pause(Duration::from_millis(5));
    }
}

#[expect(clippy::disallowed_methods, reason = "a real process is waited for; nothing here is simulated")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// So that tests see what only several loops beside each other do, on whatever machine.
pub fn more_than_one_core(kind: Kind) -> &'static str {
    match kind {
        Kind::Ostler => "ostler.cores=2\n",
        _ => "",
    }
}
