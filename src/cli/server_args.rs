//! The arguments of `ostler server`, in the forms that scripts around ZooKeeper use.
//!
//! `-Dname=value` glued and `-D name=value`, a configuration file, or ZooKeeper's own form without a file: port, data
//! directory and, if wanted, tick time and connections per client.
//!
//! Runs on: the starting thread.

use crate::config::{self, Loaded, Positional, Sources};
use crate::fatal::Fatal;
use std::ffi::OsString;
use std::path::PathBuf;

/// Run a server.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ServerArgs {
    /// A setting as a JVM would take it; the file has precedence
    #[arg(short = 'D', value_name = "NAME=VALUE", allow_hyphen_values = true)]
    pub define: Vec<String>,

    /// A configuration file in ZooKeeper's format (zoo.cfg), or PORT DATADIR [TICKTIME] [MAXCNXNS]
    ///
    /// TICKTIME is 3000 and MAXCNXNS without limit unless given. Without any of these: a standalone server on port 2181 with its data in ./ostler-data.
    #[arg(value_name = "ZOO.CFG", num_args = 0..=4)]
    pub arguments: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  ostler server
      a server on port 2181, its data in ./ostler-data
  ostler server /etc/zookeeper/conf/zoo.cfg
      in the place of a ZooKeeper server, with its file
  ostler server -Dzookeeper.extendedTypesEnabled=true -Djute.maxbuffer=4194304 zoo.cfg
      with settings that ZooKeeper takes from its JVM
  ostler server 2182 /srv/data 2000 100
      without a file: port, data directory, tick time in ms, connections per client

Environment:
  SERVER_JVMFLAGS, JVMFLAGS   -D settings, read before those of the command line; the rest has no effect";

impl ServerArgs {
    /// Reads all settings. Errors: as `config::load`; `Fatal::Usage` for arguments that make no sense.
    pub fn load(&self) -> Result<Loaded, Fatal> {
        let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (server, jvm) = (variable("SERVER_JVMFLAGS"), variable("JVMFLAGS"));
        config::load(&self.sources(server, jvm, processors)?)
    }

    fn sources(
        &self,
        server_jvm_flags: Option<String>,
        jvm_flags: Option<String>,
        processors: usize,
    ) -> Result<Sources, Fatal> {
        let (file, positional) = match self.arguments.as_slice() {
            [] => (None, None),
            [file] => (Some(PathBuf::from(file)), None),
            [port, dir, rest @ ..] => (None, Some(positional(port, dir, rest)?)),
        };
        Ok(Sources { file, defines: self.define.clone(), positional, server_jvm_flags, jvm_flags, processors })
    }
}

fn positional(port: &OsString, dir: &OsString, rest: &[OsString]) -> Result<Positional, Fatal> {
    Ok(Positional {
        client_port: number(port, "port")?,
        data_dir: PathBuf::from(dir),
        tick_time_ms: rest.first().map(|text| number(text, "tickTime")).transpose()?,
        max_client_cnxns: rest.get(1).map(|text| number(text, "maxcnxns")).transpose()?,
    })
}

fn number<T: std::str::FromStr>(text: &OsString, what: &str) -> Result<T, Fatal> {
    let text = text.to_string_lossy();
    text.parse().map_err(|_| Fatal::Usage {
        problem: format!(
            "{what} {text} is not a number in range; usage: [ZOO.CFG] or PORT DATADIR [TICKTIME] [MAXCNXNS]"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        server: ServerArgs,
    }

    fn sources(words: &[&str]) -> Result<Sources, Fatal> {
        let line = Line::try_parse_from([&["server"], words].concat()).expect("clap takes it");
        line.server.sources(None, None, 1)
    }

    #[test]
    fn settings_are_taken_glued_and_apart() {
        let sources = sources(&["-Da=b", "-D", "c=-d", "-De", "zoo.cfg"]).unwrap();
        assert_eq!(sources.defines, ["a=b", "c=-d", "e"]);
        assert_eq!(sources.file, Some(PathBuf::from("zoo.cfg")));
    }

    #[test]
    fn two_to_four_words_are_the_form_without_a_file() {
        let full = Positional {
            client_port: 2181,
            data_dir: "/d".into(),
            tick_time_ms: Some(3000),
            max_client_cnxns: Some(7),
        };
        assert_eq!(sources(&["2181", "/d", "3000", "7"]).unwrap().positional, Some(full));
        assert_eq!(sources(&["0", "/d"]).unwrap().positional.unwrap().tick_time_ms, None);
        assert!(Line::try_parse_from(["server", "1", "2", "3", "4", "5"]).is_err());
        assert_eq!(sources(&["x", "/d"]).unwrap_err().exit_status(), 2);
        assert_eq!(sources(&["65536", "/d"]).unwrap_err().exit_status(), 2);
    }
}
