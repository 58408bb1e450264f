//! An ensemble of child processes, each of them ostler or Apache ZooKeeper, on ports that nobody else has.
//!
//! Every server has a folder that outlives its process, and its kind can change between two starts: that is what an
//! operator does who migrates. Signals go to process ids.
//!
//! Runs on: the test's thread.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ostler::clock;
use tempfile::TempDir;

use super::client::{Lost, Tree, tree_of};
use crate::support::conn;
use crate::support::servers::{SUPER_DIGEST, free_port, java_options, ostler, pause, wait_for};

/// Long enough for a Java virtual machine to start on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ostler,
    /// Apache ZooKeeper 3.9.5.
    Java395,
    /// Debian's 3.8.0.
    Java380,
}

impl Kind {
    pub fn is_java(self) -> bool {
        self != Kind::Ostler
    }
}

pub struct Member {
    pub kind: Kind,
    pub client_port: u16,
    pub quorum_port: u16,
    election_port: u16,
    child: Option<Child>,
    was_ostler: bool,
    /// What its process wrote before its last start is before this.
    log_from: u64,
    /// The same of when its data was taken away.
    wiped_at: u64,
}

pub struct Cluster {
    /// Server n is `members[n - 1]`.
    members: Vec<Member>,
    folder: TempDir,
    /// Lines for every zoo.cfg.
    pub settings: Vec<String>,
    /// Servers without a vote.
    pub observers: Vec<u8>,
    /// The members are in a file of their own, which zoo.cfg names.
    pub dynamic: bool,
    /// With which version, and which others there are that are no servers here.
    pub version: u64,
    pub strangers: String,
    /// `(of, seen by, port)`: where a server finds another's quorum port if that is not the port itself.
    pub detours: Vec<(u8, u8, u16)>,
}

/// Debian's jars of 3.8.0. What they depend on is among those of 3.9.5.
const JARS_OF_3_8: [&str; 3] = [
    "/usr/share/java/zookeeper-3.8.0.jar",
    "/usr/share/java/zookeeper-jute-3.8.0.jar",
    // It loads an older slf4j, which writes with this.
    "/usr/share/java/slf4j-simple.jar",
];

/// The versions of ZooKeeper to try: the newest, and 3.8.0 where it is installed; or the one that OSTLER_JAVA names.
pub fn java_kinds() -> Vec<Kind> {
    let old = JARS_OF_3_8.iter().all(|jar| Path::new(jar).exists());
    match std::env::var("OSTLER_JAVA").as_deref() {
        Ok("3.9.5") => vec![Kind::Java395],
        Ok("3.8.0") if old => vec![Kind::Java380],
        Ok(other) => panic!("OSTLER_JAVA={other}: there is 3.9.5{}", if old { " and 3.8.0" } else { "" }),
        Err(_) if old => vec![Kind::Java395, Kind::Java380],
        Err(_) => vec![Kind::Java395],
    }
}

impl Cluster {
    /// 'o' is an ostler, 'z' a `java`; nothing is started.
    pub fn new(kinds: &str, java: Kind) -> Cluster {
        let held: Vec<_> = kinds.chars().map(|kind| (kind, [(); 3].map(|()| free_port()))).collect();
        let member = |(kind, ports): &(char, [u16; 3])| {
            let [client_port, quorum_port, election_port] = *ports;
            let kind = if *kind == 'o' { Kind::Ostler } else { java };
            Member {
                kind,
                client_port,
                quorum_port,
                election_port,
                child: None,
                was_ostler: false,
                log_from: 0,
                wiped_at: 0,
            }
        };
        let settings = [
            "tickTime=1000",
            "initLimit=20",
            "syncLimit=5",
            "maxClientCnxns=0",
            "extendedTypesEnabled=true",
            "4lw.commands.whitelist=*",
            "admin.enableServer=false",
            "maxSessionTimeout=90000",
            // So that whoever is away for as long as a busy machine needs to start it still gets what it lacks.
            "commitLogCount=20000",
            // So that histories do not reach back to the beginning.
            "snapCount=120",
        ];
        let folder = tempfile::Builder::new().prefix("ostler-test-").tempdir().expect("a temporary folder");
        fs::write(folder.path().join("log4j2.properties"), LOGGING).expect("a file in our folder");
        Cluster {
            members: held.iter().map(member).collect(),
            folder,
            settings: settings.map(String::from).into(),
            observers: Vec::new(),
            dynamic: false,
            version: 0,
            strangers: String::new(),
            detours: Vec::new(),
        }
    }

    pub fn ids(&self) -> std::ops::RangeInclusive<u8> {
        1..=self.members.len() as u8
    }

    /// All that a server has. A 3.8.0 server that has said nothing for long is asked again, from a session of its own
    /// (`known.rs`).
    pub fn tree(&self, id: u8) -> Tree {
        let mut asked = 1;
        loop {
            match tree_of(self.member(id).client_port) {
                Ok(tree) => return tree,
                Err(Lost::Silent) if self.kind(id) == Kind::Java380 && asked < 3 => {
                    println!("3.8.0 as server {id} leaves its one client without an answer: asked again");
                    asked += 1;
                }
                Err(lost) => panic!("server {id}, {:?}, does not show what it has: {lost:?}", self.kind(id)),
            }
        }
    }

    pub fn member(&self, id: u8) -> &Member {
        &self.members[id as usize - 1]
    }

    pub fn kind(&self, id: u8) -> Kind {
        self.member(id).kind
    }

    pub fn client_ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.client_port).collect()
    }

    pub fn addresses(&self) -> String {
        let all: Vec<_> = self.members.iter().map(|member| format!("127.0.0.1:{}", member.client_port)).collect();
        all.join(",")
    }

    /// What the server will be from its next start on.
    pub fn becomes(&mut self, id: u8, kind: Kind) {
        assert!(!self.is_running(id));
        self.members[id as usize - 1].kind = kind;
    }

    pub fn is_running(&self, id: u8) -> bool {
        self.member(id).child.is_some()
    }

    pub fn data(&self, id: u8) -> PathBuf {
        self.folder.path().join(format!("data{id}"))
    }

    /// Its log's folder: for some a `dataLogDir` of its own.
    pub fn data_log(&self, id: u8) -> PathBuf {
        if id.is_multiple_of(2) { self.folder.path().join(format!("txns{id}")) } else { self.data(id) }
    }

    fn log_file(&self, id: u8) -> PathBuf {
        self.folder.path().join(format!("log{id}"))
    }

    /// What the server has written since its last start.
    pub fn log(&self, id: u8) -> String {
        self.log_behind(id, self.member(id).log_from)
    }

    /// What it has written since it last had nothing.
    pub fn log_since_wiped(&self, id: u8) -> String {
        self.log_behind(id, self.member(id).wiped_at)
    }

    /// All that it has written.
    pub fn whole_log(&self, id: u8) -> String {
        self.log_behind(id, 0)
    }

    fn log_behind(&self, id: u8, place: u64) -> String {
        let bytes = fs::read(self.log_file(id)).unwrap_or_default();
        String::from_utf8_lossy(&bytes[(place as usize).min(bytes.len())..]).into_owned()
    }

    /// Its zoo.cfg, as of its last start.
    pub fn config_file(&self, id: u8) -> PathBuf {
        self.folder.path().join(format!("zoo{id}.cfg"))
    }

    /// Whether it has ever run as ostler.
    pub fn was_ostler(&self, id: u8) -> bool {
        self.member(id).was_ostler
    }

    /// Writes its zoo.cfg, and the file of its members if there is one.
    fn configure(&self, id: u8) {
        let data = self.data(id);
        let mut text = format!("dataDir={}\n", data.display());
        if self.data_log(id) != data {
            text += &format!("dataLogDir={}\n", self.data_log(id).display());
        }
        for line in &self.settings {
            text += line;
            text.push('\n');
        }
        if self.observers.contains(&id) {
            text += "peerType=observer\n";
        }
        let mut members = self.strangers.clone();
        for (at, member) in self.members.iter().enumerate() {
            let of = at as u8 + 1;
            let detour = self.detours.iter().find(|detour| detour.0 == of && detour.1 == id);
            let quorum = detour.map_or(member.quorum_port, |detour| detour.2);
            let role = if self.observers.contains(&of) { "observer" } else { "participant" };
            members += &format!("server.{of}=127.0.0.1:{quorum}:{}:{role}", member.election_port);
            members += &if self.dynamic { format!(";127.0.0.1:{}\n", member.client_port) } else { "\n".into() };
        }
        if self.dynamic {
            let file = self.folder.path().join(format!("zoo{id}.cfg.dynamic.{:x}", self.version));
            text += &format!("dynamicConfigFile={}\n", file.display());
            fs::write(file, members).expect("a file in our folder");
        } else {
            text += &format!("clientPort={}\nclientPortAddress=127.0.0.1\n{members}", self.member(id).client_port);
        }
        fs::write(self.config_file(id), text).expect("a file in our folder");
    }

    /// What an operator does with a 3.8.0 that was killed between the creation of a log file and its header, and does not
    /// start again (ZOOKEEPER-1621); later versions do it themselves.
    fn remove_empty_logs(&self, id: u8) {
        let folders = [self.data(id), self.data_log(id)].map(|folder| folder.join("version-2"));
        for entry in folders.iter().flat_map(fs::read_dir).flatten().flatten() {
            let is_log = entry.file_name().to_string_lossy().starts_with("log.");
            if is_log && entry.metadata().is_ok_and(|file| file.len() == 0) {
                println!("{}, which is empty, is removed", entry.path().display());
                fs::remove_file(entry.path()).expect("a file in our folder");
            }
        }
    }

    /// Starts the process and does not wait for anything.
    pub fn start(&mut self, id: u8) {
        assert!(!self.is_running(id));
        let data = self.data(id);
        fs::create_dir_all(&data).expect("a folder in ours");
        fs::write(data.join("myid"), id.to_string()).expect("a file in our folder");
        self.configure(id);
        if self.kind(id) == Kind::Java380 {
            self.remove_empty_logs(id);
        }
        let config = self.config_file(id);
        let log = File::options().create(true).append(true).open(self.log_file(id)).expect("a log");
        let log_from = log.metadata().map_or(0, |file| file.len());
        let super_user = format!("-Dzookeeper.DigestAuthenticationProvider.superDigest={SUPER_DIGEST}");
        let kind = self.kind(id);
        let mut command = if kind == Kind::Ostler {
            let mut command = Command::new(ostler());
            command.arg("server");
            command
        } else {
            let mut options = java_options();
            if let Some(path) = options.last_mut()
                && kind == Kind::Java380
            {
                *path = format!("{}:{path}", JARS_OF_3_8.join(":"));
            }
            let logging = self.folder.path().join("log4j2.properties");
            let mut command = Command::new("java");
            command.args(options).arg(format!("-Dlog4j2.configurationFile={}", logging.display())).args([
                "-XX:-UsePerfData",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.server.quorum=info",
                "-Dorg.slf4j.simpleLogger.showDateTime=true",
                "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
                &super_user,
                "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            ]);
            command
        };
        if kind == Kind::Ostler {
            command.arg(&super_user);
        }
        command.arg(&config).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        command.env_remove("SERVER_JVMFLAGS").env_remove("JVMFLAGS").current_dir(self.folder.path());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let member = &mut self.members[id as usize - 1];
        (member.child, member.log_from) = (Some(child), log_from);
        member.was_ostler |= kind == Kind::Ostler;
    }

    pub fn start_all(&mut self) {
        self.ids().for_each(|id| self.start(id));
    }

    pub fn signal(&self, id: u8, signal: &str) {
        let child = self.member(id).child.as_ref().expect("it runs");
        let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Stops all of its threads, and waits until they stand: a signal alone lets those go on that run just now.
    pub fn freeze(&self, id: u8) {
        self.signal(id, "STOP");
        let process = self.member(id).child.as_ref().expect("it runs").id();
        wait_for("a process to stand still", PATIENCE, || {
            let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("a child of ours");
            let stands = |task: std::io::Result<fs::DirEntry>| {
                let Ok(text) = task.and_then(|task| fs::read_to_string(task.path().join("stat"))) else { return true };
                text.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"))
            };
            tasks.into_iter().all(stands).then_some(())
        });
    }

    /// kill -9, and waits for its end.
    pub fn kill(&mut self, id: u8) {
        if let Some(mut child) = self.members[id as usize - 1].child.take() {
            // It may have ended by itself; `wait` then says so.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self, id: u8) {
        self.signal(id, "TERM");
        let mut child = self.members[id as usize - 1].child.take().expect("it runs");
        wait_for("the server's end", PATIENCE, || child.try_wait().expect("our child"));
    }

    /// Waits for the end of a server that ends by itself; its exit status.
    pub fn ended(&mut self, id: u8) -> Option<i32> {
        let mut child = self.members[id as usize - 1].child.take().expect("it runs");
        wait_for("the server's own end", PATIENCE, || child.try_wait().expect("our child")).code()
    }

    /// Its data is gone, as if it were new.
    pub fn wipe(&mut self, id: u8) {
        assert!(!self.is_running(id));
        fs::remove_dir_all(self.data(id)).expect("a folder of ours");
        if self.data_log(id) != self.data(id) {
            fs::remove_dir_all(self.data_log(id)).expect("a folder of ours");
        }
        self.members[id as usize - 1].wiped_at = fs::metadata(self.log_file(id)).map_or(0, |file| file.len());
    }

    /// How it serves: "leader", "follower"; `None` while it does not. Panics if its process has ended.
    pub fn mode(&mut self, id: u8) -> Option<String> {
        let child = self.members[id as usize - 1].child.as_mut()?;
        if let Ok(Some(status)) = child.try_wait() {
            panic!("server {id} has ended by itself: {status}");
        }
        let answer = conn::word_within(Duration::from_millis(400), self.member(id).client_port, "srvr").ok()?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    /// Waits until every server that runs serves, and one of them leads; which.
    pub fn leader(&mut self) -> u8 {
        let begin = clock::now();
        loop {
            let ids: Vec<u8> = self.ids().filter(|id| self.is_running(*id)).collect();
            let modes: Vec<_> = ids.iter().map(|id| self.mode(*id)).collect();
            let leads: Vec<_> = ids.iter().zip(&modes).filter(|(_, mode)| mode.as_deref() == Some("leader")).collect();
            if modes.iter().all(Option::is_some)
                && let [(id, _)] = leads[..]
            {
                return *id;
            }
            assert!(clock::now().since(begin) < PATIENCE, "no ensemble after {PATIENCE:?}: {ids:?} are {modes:?}");
            pause(Duration::from_millis(20));
        }
    }

    /// Waits until that server serves.
    pub fn serves(&mut self, id: u8) -> String {
        wait_for(&format!("server {id} to serve"), PATIENCE, || {
            let mode = self.mode(id);
            if mode.is_none() {
                pause(Duration::from_millis(10));
            }
            mode
        })
    }

    /// A number out of `mntr`.
    pub fn measured(&self, id: u8, name: &str) -> i64 {
        let answer = conn::word(self.member(id).client_port, "mntr").expect("it serves");
        let value = answer.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix('\t')));
        let value = value.unwrap_or_else(|| panic!("no {name} in mntr of {:?}", self.kind(id)));
        value.trim().parse::<f64>().expect("a number") as i64
    }
}

impl Cluster {
    /// What the servers have written last; what is on disk is kept, if that is wanted.
    pub fn show(&mut self) {
        for id in self.ids() {
            let log = self.log(id);
            // Where an exception comes from is told by its first line; the rest of Java's stack would leave no room.
            let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("\tat ")).collect();
            eprintln!("--- end of the log of server {id}, {:?}", self.kind(id));
            lines[lines.len().saturating_sub(40)..].iter().for_each(|line| eprintln!("{line:.260}"));
            self.kill(id);
        }
        if std::env::var_os("OSTLER_KEEP").is_some() {
            let kept = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder")).keep();
            eprintln!("--- data and logs are kept in {}", kept.display());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        self.ids().for_each(|id| self.kill(id));
    }
}

/// How a learner is brought up to date is said by ZooKeeper at level info only.
const LOGGING: &str = "\
status = warn
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = %d{ABSOLUTE} %-5p %c{1} %m%n%ex{6}
rootLogger.level = warn
rootLogger.appenderRef.err.ref = err
logger.quorum.name = org.apache.zookeeper.server.quorum
logger.quorum.level = info
";
