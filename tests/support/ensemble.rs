//! Ensembles of servers as child processes, ostler's or ZooKeeper's.
//!
//! Ports are chosen by the kernel: all are bound at once, released, and handed out. Where another process has taken one
//! in between, the ensemble begins again with others; a server that is started again waits for its port.
//!
//! Runs on: the test's thread. Servers are killed by id when the ensemble is dropped.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use ostler::clock;
use tempfile::TempDir;

use super::client::{Client, Refusal};
use super::conn;
use super::servers::{Kind, Options, command, more_than_one_core, wait_for};

/// How long an ensemble may take to be what a test waits for.
pub const SOON: Duration = Duration::from_secs(40);

/// What an ensemble is made of.
#[derive(Clone)]
pub struct Layout {
    pub kind: Kind,
    pub voters: usize,
    /// They come after the voters.
    pub observers: usize,
    /// What each server is started with. `server.N` lines are added.
    pub options: Options,
    /// Where each server is: 127.0.0.1 if there is none for it.
    pub hosts: Vec<Ipv4Addr>,
    /// What each server is run under, beside `options.under`.
    pub under: Vec<Vec<String>>,
    /// Each server's folder, where it has to be a certain one.
    pub folders: Vec<PathBuf>,
}

impl Layout {
    /// With short ticks, so that sessions can be short, and much patience with silent peers: a busy machine must not look
    /// like a partition. Killed ones are noticed by their connections.
    pub fn of(voters: usize) -> Layout {
        let config = [
            "tickTime=200",
            "initLimit=50",
            "syncLimit=50",
            "maxSessionTimeout=60000",
            "maxClientCnxns=0",
            "4lw.commands.whitelist=*",
            "admin.enableServer=false",
        ];
        let options = Options { config: config.map(String::from).into(), ..Options::default() };
        let (hosts, under, folders) = (Vec::new(), Vec::new(), Vec::new());
        Layout { kind: Kind::Ostler, voters, observers: 0, options, hosts, under, folders }
    }

    /// A line of zoo.cfg, instead of the one with the same key.
    pub fn with(mut self, line: &str) -> Layout {
        let key = line.split('=').next().unwrap_or_default();
        self.options.config.retain(|other| other.split('=').next() != Some(key));
        self.options.config.push(line.into());
        self
    }

    pub fn observers(mut self, count: usize) -> Layout {
        self.observers = count;
        self
    }

    pub fn kind(mut self, kind: Kind) -> Layout {
        self.kind = kind;
        self
    }
}

struct Member {
    client_port: u16,
    quorum_port: u16,
    election_port: u16,
    folder: PathBuf,
    child: Option<Child>,
}

/// Servers are named by their place, 0 to n-1; their ids are one more.
pub struct Ensemble {
    layout: Layout,
    members: Vec<Member>,
    /// Kept until the servers have ended.
    _folder: TempDir,
}

impl Ensemble {
    /// Starts them all at once and waits until each serves.
    pub fn start(layout: Layout) -> Ensemble {
        Ensemble::start_after(layout, |_| Ok(())).0
    }

    /// The same, when that has been done to what is prepared; an error of it is that a port is taken.
    pub fn start_after<T>(layout: Layout, before: impl Fn(&Ensemble) -> io::Result<T>) -> (Ensemble, T) {
        for _ in 0..5 {
            let mut ensemble = Ensemble::prepare(layout.clone());
            let Ok(done) = before(&ensemble) else { continue };
            for at in 0..ensemble.len() {
                ensemble.spawn(at);
            }
            let serving = wait_for("an ensemble", SOON, || {
                if (0..ensemble.len()).any(|at| !ensemble.is_running(at)) {
                    return Some(false);
                }
                (0..ensemble.len()).all(|at| ensemble.mode(at).is_some()).then_some(true)
            });
            if serving {
                return (ensemble, done);
            }
            let logs: Vec<String> = (0..ensemble.len()).map(|at| ensemble.log(at)).collect();
            let clash = logs.iter().any(|log| log.to_lowercase().contains("address already in use"));
            assert!(clash, "a server has ended at its start:\n{}", logs.join("\n---\n"));
        }
        panic!("no free ports in five tries");
    }

    /// Ports, folders and ids; nothing runs.
    pub fn prepare(layout: Layout) -> Ensemble {
        let folder = tempfile::Builder::new().prefix("ostler-ensemble-").tempdir().expect("a temporary folder");
        let count = layout.voters + layout.observers;
        // All bound before the first is released: no two are the same.
        let held: Vec<TcpListener> =
            (0..3 * count).map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port")).collect();
        let port = |at: usize| held[at].local_addr().expect("it is bound").port();
        let members = (0..count)
            .map(|at| Member {
                client_port: port(3 * at),
                quorum_port: port(3 * at + 1),
                election_port: port(3 * at + 2),
                folder: layout.folders.get(at).cloned().unwrap_or_else(|| folder.path().join((at + 1).to_string())),
                child: None,
            })
            .collect();
        let ensemble = Ensemble { layout, members, _folder: folder };
        for at in 0..count {
            ensemble.write_files(at);
        }
        ensemble
    }

    fn write_files(&self, at: usize) {
        let member = &self.members[at];
        fs::create_dir_all(self.data(at)).expect("a data directory");
        fs::write(self.data(at).join("myid"), format!("{}\n", at + 1)).expect("myid is written");
        let mut text = format!(
            "dataDir={}\nclientPort={}\nclientPortAddress={}\n",
            self.data(at).display(),
            member.client_port,
            self.host(at)
        );
        text += more_than_one_core(self.layout.kind);
        for (of, other) in self.members.iter().enumerate() {
            let role = if of < self.layout.voters { "participant" } else { "observer" };
            let (host, quorum, election) = (self.host(of), other.quorum_port, other.election_port);
            text += &format!("server.{}={host}:{quorum}:{election}:{role}\n", of + 1);
        }
        if at >= self.layout.voters {
            text += "peerType=observer\n";
        }
        for line in &self.layout.options.config {
            text += &format!("{line}\n");
        }
        fs::write(member.folder.join("zoo.cfg"), text).expect("zoo.cfg is written");
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    fn host(&self, at: usize) -> Ipv4Addr {
        self.layout.hosts.get(at).copied().unwrap_or(Ipv4Addr::LOCALHOST)
    }

    /// Where its clients connect.
    pub fn address(&self, at: usize) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.host(at)), self.members[at].client_port)
    }

    /// Where learners connect while it leads.
    pub fn quorum_address(&self, at: usize) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.host(at)), self.members[at].quorum_port)
    }

    pub fn election_address(&self, at: usize) -> SocketAddr {
        (self.host(at), self.members[at].election_port).into()
    }

    /// Its zoo.cfg.
    pub fn config(&self, at: usize) -> PathBuf {
        self.members[at].folder.join("zoo.cfg")
    }

    /// host:port of all, as clients are given it.
    pub fn connect_text(&self) -> String {
        let all: Vec<String> = (0..self.len()).map(|at| self.address(at).to_string()).collect();
        all.join(",")
    }

    pub fn data(&self, at: usize) -> PathBuf {
        self.members[at].folder.join("data")
    }

    pub fn id(&self, at: usize) -> u32 {
        self.members[at].child.as_ref().map_or(0, Child::id)
    }

    /// Starts a process, and waits for nothing.
    pub fn spawn(&mut self, at: usize) {
        let folder = self.members[at].folder.clone();
        let log = File::options().create(true).append(true).open(self.log_file(at));
        let log = log.expect("server.log is opened");
        let mut options = self.layout.options.clone();
        if let Some(under) = self.layout.under.get(at) {
            options.under.extend(under.iter().cloned());
        }
        let mut command = command(self.layout.kind, &options, &folder.join("zoo.cfg"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        command.current_dir(&folder);
        let member = &mut self.members[at];
        assert!(member.child.is_none(), "server {} runs", at + 1);
        member.child = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    /// Starts it again and waits until it serves. A port that another process uses meanwhile is waited for.
    pub fn restart(&mut self, at: usize) {
        self.spawn(at);
        wait_for(&format!("server {} to serve again", at + 1), SOON, || {
            if !self.is_running(at) {
                let log = self.log(at);
                let ending =
                    log.lines().rev().take(5).any(|line| line.to_lowercase().contains("address already in use"));
                assert!(ending, "server {} has ended at its start:\n{log}", at + 1);
                self.members[at].child = None;
                self.spawn(at);
            }
            self.mode(at)
        });
    }

    pub fn is_running(&mut self, at: usize) -> bool {
        self.members[at].child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// kill -9, and waits for its end.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            // It may have ended by itself; `wait` then says so.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// kill -9 to all of these before the first is waited for.
    pub fn kill_all(&mut self, which: &[usize]) {
        for &at in which {
            if let Some(child) = &mut self.members[at].child {
                let _ = child.kill();
            }
        }
        which.iter().for_each(|&at| self.kill(at));
    }

    /// Sends a signal. STOP: returns when every thread of it stands still.
    pub fn signal(&self, at: usize, name: &str) {
        let id = self.id(at).to_string();
        assert!(id != "0", "server {} runs", at + 1);
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill is there");
        assert!(sent.success(), "kill -{name} {id}");
        if name == "STOP" {
            wait_for("a process to stand still", SOON, || all_stopped(&id).then_some(()));
        }
    }

    /// SIGTERM, and waits for its end; the exit status.
    pub fn terminate(&mut self, at: usize) -> ExitStatus {
        self.signal(at, "TERM");
        self.terminate_sent(at)
    }

    /// Waits for the end of one that has been told to stop; the exit status.
    pub fn terminate_sent(&mut self, at: usize) -> ExitStatus {
        let mut child = self.members[at].child.take().expect("it runs");
        wait_for("the server's end", SOON, || child.try_wait().expect("our child"))
    }

    /// Its answer to a four-letter word, if it gives one.
    pub fn word(&self, at: usize, word: &str) -> Option<String> {
        conn::word_at(Duration::from_millis(500), self.address(at), word).ok()
    }

    /// One number of its `mntr`, without `zk_`.
    pub fn measured(&self, at: usize, name: &str) -> u64 {
        let text = wait_for("what it counts", SOON, || self.word(at, "mntr").filter(|text| text.starts_with("zk_")));
        let value = text.lines().find_map(|line| line.strip_prefix("zk_")?.strip_prefix(name)?.strip_prefix('\t'));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }

    /// leader, follower or observer; `None` while it doesn't serve.
    pub fn mode(&self, at: usize) -> Option<String> {
        let answer = self.word(at, "srvr")?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(String::from)
    }

    /// The running server that leads now, if one says so.
    pub fn leading_now(&self) -> Option<usize> {
        (0..self.len())
            .filter(|&at| self.members[at].child.is_some())
            .find(|&at| self.mode(at).as_deref() == Some("leader"))
    }

    pub fn leader(&self) -> usize {
        wait_for("a leader", SOON, || self.leading_now())
    }

    /// The running participants that follow, as soon as all that run serve: a busy machine may just have lost a leader.
    pub fn followers(&self) -> Vec<usize> {
        let running = || (0..self.len()).filter(|&at| self.members[at].child.is_some());
        let modes: Vec<(usize, String)> = wait_for("all that run to serve", SOON, || {
            running().map(|at| self.mode(at).map(|mode| (at, mode))).collect()
        });
        modes.into_iter().filter(|(_, mode)| mode == "follower").map(|(at, _)| at).collect()
    }

    /// Waits until it serves.
    pub fn serving(&self, at: usize) -> String {
        wait_for(&format!("server {} to serve", at + 1), SOON, || self.mode(at))
    }

    /// A new session on this server, as soon as it gives one.
    pub fn client(&self, at: usize, timeout_ms: i32) -> Client {
        wait_for(&format!("a session on server {}", at + 1), SOON, || {
            match Client::open(self.address(at), timeout_ms) {
                Ok(client) => Some(client),
                Err(Refusal::NotNow(_)) => None,
                Err(Refusal::Expired) => panic!("a new session is called expired"),
            }
        })
    }

    /// The session on another server, as soon as that takes it. Panics if it has expired.
    pub fn moved(&self, from: Client, at: usize) -> Client {
        let (session, zxid) = (from.granted.clone(), from.last_zxid);
        drop(from);
        self.resumed(&session, zxid, at)
    }

    pub fn resumed(&self, session: &conn::Granted, zxid: i64, at: usize) -> Client {
        wait_for(&format!("a session to be taken up by server {}", at + 1), SOON, || {
            match Client::resume(self.address(at), session, zxid) {
                Ok(client) => Some(client),
                Err(Refusal::NotNow(_)) => None,
                Err(Refusal::Expired) => panic!("session {:x} has expired", session.session),
            }
        })
    }

    /// Until the server has taken more requests of a connection than it has answered: of that whose line of `cons` has
    /// `mark` in it.
    pub fn wait_until_it_owes(&self, at: usize, mark: &str) {
        wait_for("a request without an answer", SOON, || {
            let all = self.word(at, "cons")?;
            let line = all.lines().find(|line| line.contains(mark))?.to_owned();
            let number = |name: &str| -> Option<u64> {
                let digits = line.split(name).nth(1)?.split(',').next()?;
                digits.trim_end_matches(')').parse().ok()
            };
            (number("recved=")? > number("sent=")?).then_some(())
        });
    }

    /// Its log, from where one has looked before.
    pub fn whole_log(&self, at: usize) -> String {
        let text = fs::read(self.log_file(at)).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    pub fn log_file(&self, at: usize) -> PathBuf {
        self.members[at].folder.join("server.log")
    }

    /// The end of what it wrote to its standard outputs.
    pub fn log(&self, at: usize) -> String {
        let text = self.whole_log(at);
        let lines: Vec<String> = text.lines().map(|line| line.chars().take(300).collect()).collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

/// What `cons` has in the line of that client's session.
pub fn session(client: &Client) -> String {
    format!("sid=0x{:x}", client.granted.session)
}

fn all_stopped(id: &str) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else { return false };
    let stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
    tasks.flatten().all(|task| fs::read_to_string(task.path().join("stat")).is_ok_and(stopped))
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let at = clock::wall_ms() / 1000 % 86_400;
            eprintln!("--- ended at {:02}:{:02}:{:02}", at / 3600, at / 60 % 60, at % 60);
            for at in 0..self.len() {
                eprintln!("--- end of the log of server {}\n{}", at + 1, self.log(at));
                if let Some(folder) = std::env::var_os("OSTLER_KEEP_LOGS") {
                    let name = format!("{}-{}.log", std::process::id(), at + 1);
                    // The test has failed already; this is only to see why.
                    let _ = fs::create_dir_all(&folder);
                    let _ = fs::copy(self.members[at].folder.join("server.log"), PathBuf::from(folder).join(name));
                }
            }
        }
        self.kill_all(&(0..self.len()).collect::<Vec<_>>());
    }
}
