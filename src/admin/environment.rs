//! `envi`: what process this is and where it runs.
//!
//! The keys are those of a Java server, because they are parsed; what a Rust program doesn't have is `<NA>`, as Java
//! prints a missing value.
//!
//! Runs on: whichever thread answers.

use std::fmt::Write;

/// The version that this server gives in every answer.
///
/// Clients and agents read the three numbers and sometimes what follows up to the comma; people see who it is.
pub const VERSION: &str = concat!("3.9.5-ostler", env!("CARGO_PKG_VERSION"), ", built on ", "2026-11-25 00:00 UTC");

/// What `envi` prints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Environment {
    pub host_name: String,
    pub os_arch: String,
    pub os_version: String,
    pub user_name: String,
    pub user_home: String,
    pub user_dir: String,
    pub temp_dir: String,
    /// Of the machine, in MiB.
    pub memory_free_mib: u64,
    pub memory_total_mib: u64,
}

impl Environment {
    /// Of this process, now. Reads environment variables and `/etc/passwd`, and asks the kernel.
    pub fn of_this_process() -> Environment {
        let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let name = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let memory = rustix::system::sysinfo();
        let unit = memory.mem_unit as u64;
        let mib = |units: u64| units.saturating_mul(unit) >> 20;
        Environment {
            host_name: text(name.nodename()),
            // Java's names of the two machines that matter.
            os_arch: match text(name.machine()).as_str() {
                "x86_64" => "amd64".into(),
                other => other.to_owned(),
            },
            os_version: text(name.release()),
            user_name: user_name().or_else(|| variable("USER")).unwrap_or_else(|| "<NA>".into()),
            user_home: variable("HOME").unwrap_or_else(|| "<NA>".into()),
            user_dir: std::env::current_dir().map_or_else(|_| "<NA>".into(), |dir| dir.display().to_string()),
            temp_dir: std::env::temp_dir().display().to_string(),
            memory_free_mib: mib(memory.freeram as u64),
            memory_total_mib: mib(memory.totalram as u64),
        }
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::from("Environment:\n");
        let (free, total) = (format!("{}MB", self.memory_free_mib), format!("{}MB", self.memory_total_mib));
        let lines: [(&str, &str); 18] = [
            ("zookeeper.version", VERSION),
            ("host.name", &self.host_name),
            ("java.version", "<NA>"),
            ("java.vendor", "<NA>"),
            ("java.home", "<NA>"),
            ("java.class.path", "<NA>"),
            ("java.library.path", "<NA>"),
            ("java.io.tmpdir", &self.temp_dir),
            ("java.compiler", "<NA>"),
            ("os.name", "Linux"),
            ("os.arch", &self.os_arch),
            ("os.version", &self.os_version),
            ("user.name", &self.user_name),
            ("user.home", &self.user_home),
            ("user.dir", &self.user_dir),
            ("os.memory.free", &free),
            ("os.memory.max", &total),
            ("os.memory.total", &total),
        ];
        for (key, value) in lines {
            let _ = writeln!(text, "{key}={value}");
        }
        text
    }
}

/// The name of the user who runs this process, whatever the environment says: services often have no `USER`.
fn user_name() -> Option<String> {
    let id = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(&id))?;
    line.split(':').next().map(str::to_owned)
}
