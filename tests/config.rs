//! Which files stop the start, with which words and which exit status; the same table for ostler and for ZooKeeper.
//!
//! `ostler_refuses_…` runs always. `zookeeper_refuses_…` starts the real server with each file and finds the words in
//! what it prints; it needs Java and the jars that `tools/peers.sh` brings. Another hands thousands of generated files to
//! Java's own reader of the format and compares. The last one holds the documentation to the table of keys.

use ostler::config::keys::Does;
use ostler::config::{self, Sources, keys, properties};
use ostler::random::Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a refused file has (`DIR` is a data directory), the words of both servers, and how ZooKeeper ends.
struct Refusal {
    lines: &'static str,
    /// What `myid` has, if there is one.
    myid: Option<&'static str>,
    words: &'static str,
    zookeeper: i32,
}

const fn refused(lines: &'static str, words: &'static str) -> Refusal {
    Refusal { lines, myid: None, words, zookeeper: 2 }
}

/// The same of a member of an ensemble: three servers, the limits, and the lines.
const fn member(myid: &'static str, lines: &'static str, words: &'static str) -> Refusal {
    Refusal { lines, myid: Some(myid), words, zookeeper: 2 }
}

const BOTH: &[Refusal] = &[
    refused("clientPort=2181", "dataDir is not set"),
    refused("dataDir=DIR\nclientPort=70000", "port out of range:70000"),
    refused("dataDir=DIR\nclientPort=-1", "port out of range:-1"),
    refused("dataDir=DIR\nclientPort=2181x", "For input string: \"2181x\""),
    refused("dataDir=DIR\nclientPort=2181\nsecureClientPort=70000", "port out of range:70000"),
    refused("dataDir=DIR\nclientPortAddress=127.0.0.1", "clientPortAddress is set but clientPort is not set"),
    refused(
        "dataDir=DIR\nclientPort=2181\nsecureClientPortAddress=127.0.0.1",
        "secureClientPortAddress is set but secureClientPort is not set",
    ),
    refused("dataDir=DIR\nclientPort=2181\nclientPortAddress=[::1", "[::1"),
    refused("dataDir=DIR\nclientPort=2181\ntickTime=0", "tickTime is not set"),
    refused("dataDir=DIR\nclientPort=2181\ntickTime=2147483648", "For input string: \"2147483648\""),
    refused(
        "dataDir=DIR\nclientPort=2181\nminSessionTimeout=9\nmaxSessionTimeout=5",
        "minSessionTimeout must not be larger than maxSessionTimeout",
    ),
    refused("dataDir=DIR\nclientPort=2181\nmaxClientCnxns=many", "For input string: \"many\""),
    refused("dataDir=DIR\nclientPort=2181\nclientPortListenBacklog=x", "For input string: \"x\""),
    refused("dataDir=DIR\nclientPort=2181\nautopurge.purgeInterval=1h", "For input string: \"1h\""),
    refused("dataDir=DIR\nclientPort=2181\nautopurge.snapRetainCount=x", "For input string: \"x\""),
    refused("dataDir=DIR\nclientPort=2181\ninitLimit=abc", "For input string: \"abc\""),
    refused("dataDir=DIR\nclientPort=2181\nquorum.cnxn.threads.size=x", "For input string: \"x\""),
    refused("dataDir=DIR\nclientPort=2181\njvm.pause.sleep.time.ms=x", "For input string: \"x\""),
    refused(
        "dataDir=DIR\nclientPort=2181\nsslQuorum=yes",
        "Invalid option yes for sslQuorum. Choose 'true' or 'false.'",
    ),
    refused(
        "dataDir=DIR\nclientPort=2181\nreconfigEnabled=yes",
        "Invalid option yes for reconfigEnabled. Choose 'true' or 'false.'",
    ),
    refused(
        "dataDir=DIR\nclientPort=2181\nstandaloneEnabled=1",
        "Invalid option 1 for standaloneEnabled. Choose 'true' or 'false.'",
    ),
    refused(
        "dataDir=DIR\nclientPort=2181\nquorum.auth.enableSasl=yes",
        "Invalid option yes for quorum.auth.enableSasl. Choose 'true' or 'false.'",
    ),
    refused("dataDir=DIR\nclientPort=2181\nquorum.auth.learnerRequireSasl=true", "quorum.auth.learnerRequireSasl"),
    refused("dataDir=DIR\nclientPort=2181\nelectionAlg=1", "Invalid electionAlg value. Only 3 is supported."),
    refused("dataDir=DIR\nclientPort=2181\npeerType=foo", "Unrecognised peertype: foo"),
    refused("dataDir=DIR\nclientPort=2181\nmetricsProvider.className=foo.Bar", "metrics provider class was not found"),
    refused(
        "dataDir=DIR\nclientPort=2181\nstandaloneEnabled=false",
        "standaloneEnabled = false then number of participants should be >0",
    ),
    refused("dataDir=DIR\nclientPort=2181\nserver.1=h", "h does not have the form server_config"),
    refused("dataDir=DIR\nclientPort=2181\nserver.1=h:2:3;2181;3", "does not have the form server_config"),
    refused("dataDir=DIR\nclientPort=2181\nserver.1=h:1:1", "Client and election port must be different!"),
    refused("dataDir=DIR\nclientPort=2181\nserver.1=h:2:3:leader", "Unrecognised peertype: leader"),
    refused(
        "dataDir=DIR\nclientPort=2181\nserver.1=h:2:3:observer",
        "Observers w/o participants is an invalid configuration",
    ),
    refused(
        "dataDir=DIR\nclientPort=2181\nserver.1=h:2:3\nserver.2=h:4:5:observer",
        "Observers w/o quorum is an invalid configuration",
    ),
    refused(
        "dataDir=DIR\nclientPort=2181\nserver.1=h:2:3\ndynamicConfigFile=DIR/dynamic",
        "parameter: server.1 must be in a separate dynamic config file",
    ),
    refused("dataDir=DIR\nclientPort=2181\ndynamicConfigFile=DIR/none", "DIR/none"),
    refused(
        "dataDir=DIR\nclientPort=2181\ndynamicConfigFile=DIR/versioned",
        "dynamic file shouldn't have version inside",
    ),
    refused("dataDir=DIR\nclientPort=2181\ndynamicConfigFile=DIR/unknown", "Unrecognised parameter: tickTime"),
    refused(
        "dataDir=DIR\nclientPort=2181\nserver.1=h:1:2|i:1:2",
        "Multiple address feature is disabled, but multiple addresses were specified for sid 1",
    ),
    refused("dataDir=DIR\nclientPort=2181\nserver.1=h:1:2\nweight.1=1", "Server 1is not in a group"),
    refused("dataDir=DIR\nclientPort=2181\nenforce.auth.enabled=true", "enforce.auth.schemes"),
    refused("dataDir=DIR\nclientPort=2181\nTWO", "initLimit is not set"),
    refused("dataDir=DIR\nclientPort=2181\ninitLimit=5\nTWO", "syncLimit is not set"),
    refused("dataDir=DIR\nclientPort=2181\ninitLimit=5\nsyncLimit=x\nTWO", "For input string: \"x\""),
    refused("dataDir=DIR\nclientPort=2181\ninitLimit=5\nsyncLimit=2\nTWO", "myid file is missing"),
    refused("dataDir=DIR\nclientPort=2181\nserver.1=h:1:2\nstandaloneEnabled=false", "initLimit is not set"),
    member("abc", "dataDir=DIR\nclientPort=2181", "serverid abc is not a number"),
    member("", "dataDir=DIR\nclientPort=2181", "serverid null is not a number"),
    member("1x\n", "dataDir=DIR\nclientPort=2181\ninitLimit=5\nsyncLimit=2\nTWO", "serverid 1x is not a number"),
    member(
        "1",
        "dataDir=DIR\nclientPort=2181\nserver.1=h:1:2;2182\nserver.2=h:3:4",
        "client address for this server (id = 1) in static config file is",
    ),
    member(
        "1",
        "dataDir=DIR\nclientPort=2181\nserver.1=h:1:2;2182\nserver.2=h:3:4",
        "is different from client address found in dynamic file: ",
    ),
    member("1", "dataDir=DIR\nclientPort=2181\nTWO\ngroup.1=1:2\ngroup.2=2", "Server 2is in multiple groups"),
    member("1", "dataDir=DIR\nclientPort=2181\nTWO\ngroup.1=1", "Server 2is not in a group"),
    member("1", "dataDir=DIR\nclientPort=2181\nTWO\nweight.1=1", "Server 1is not in a group"),
    member("1", "dataDir=DIR\nclientPort=2181\nTWO\ngroup.1=1:x", "For input string: \"x\""),
    member("1", "dataDir=DIR\nclientPort=2181\nTWO\ngroups=1:2", "For input string: \"groups\""),
    member("1", "dataDir=DIR\nclientPort=2181\nTWO\ngroup.1=1:2\nweight.1=z", "For input string: \"z\""),
    member("1", "dataDir=DIR\nclientPort=2181\nTWO\nserver.3=h:1:2|i:1:2", "were specified for sid 3"),
    Refusal {
        lines: "dataDir=DIR\nclientPort=0\ninitLimit=5\nsyncLimit=2\nTWO",
        myid: Some("9"),
        words: "My id 9 not in the peer list",
        zookeeper: 1,
    },
    refused("dataDir=DIR\nclientPort=2181\nenforce.auth.enabled=true\nenforce.auth.schemes=foo", "foo"),
    Refusal {
        lines: "dataDir=DIR\nclientPort=2181\nDigestAuthenticationProvider.digestAlg=FOO",
        myid: None,
        words: "FOO",
        zookeeper: 1,
    },
];

/// What stops only ostler: nothing would listen, or something would be less protected than the file asks for.
const OURS: &[(&str, &str)] = &[
    ("dataDir=\nclientPort=2181", "dataDir is empty; name a directory"),
    ("dataDir=DIR\nclientPort=2181\ndataLogDir=", "dataLogDir is empty; name a directory"),
    ("dataDir=DIR", "clientPort is not set: nothing would listen"),
    ("dataDir=DIR\nsecureClientPort=2281", "this build has no TLS yet: nothing would listen"),
    ("dataDir=DIR\nclientPort=2181\nx=\\u00g1", "Malformed \\uxxxx encoding."),
    ("dataDir=DIR\nclientPort=2181\ntickTime=-5", "tickTime -5 is below 1"),
    ("dataDir=DIR\nclientPort=2181\nminSessionTimeout=-2", "minSessionTimeout -2 is below 0"),
    (
        "dataDir=DIR\nclientPort=2181\nostler.connectionWatchBytes=65535",
        "ostler.connectionWatchBytes 65535 is below 65536",
    ),
    (
        "dataDir=DIR\nclientPort=2181\nostler.coreOutputBytes=67108863",
        "ostler.coreOutputBytes 67108863 is below 67108864",
    ),
    ("dataDir=DIR\nclientPort=2181\nostler.cores=0", "ostler.cores 0 is not within 1 and 256"),
    ("dataDir=DIR\nclientPort=2181\nostler.cores=257", "ostler.cores 257 is not within 1 and 256"),
    ("dataDir=DIR\nclientPort=2181\nostler.pinCores=yes", "Invalid option yes for ostler.pinCores"),
    ("dataDir=DIR\nclientPort=2181\nsslQuorum=true", "sslQuorum=true: TLS between servers is not in this build"),
    ("dataDir=DIR\nclientPort=2181\nquorum.auth.enableSasl=true", "SASL between servers is not in this build"),
    ("dataDir=DIR\nclientPort=2181\nquorum.auth.serverRequireSasl=true", "SASL between servers is not in this build"),
    ("dataDir=DIR\nclientPort=2181\nsessionRequireClientSASLAuth=true", "clients without it would be let in"),
    (
        "dataDir=DIR\nclientPort=2181\nenforce.auth.enabled=true\nenforce.auth.schemes=sasl",
        "no authentication scheme sasl",
    ),
    ("dataDir=DIR\nclientPort=2181\nensembleAuthName=a", "clients of another ensemble would not be refused"),
    ("dataDir=DIR\nclientPort=2181\nletAnySaslUserDoX=a", "one identity to every SASL user"),
    ("dataDir=DIR\nclientPort=2181\nauthProvider.1=my.Provider", "this authentication provider is not known"),
    ("dataDir=DIR\nclientPort=2181\nssl.authProvider=mine", "only x509 will be known"),
    ("dataDir=DIR\nclientPort=2181\nTWO\nserver.300=c:2:3", "server.300: ids above 255 are not supported"),
    ("dataDir=DIR\nclientPort=2181\nTWO\ninitLimit=-5\nsyncLimit=1", "initLimit -5 is below 1"),
    ("dataDir=DIR\nclientPort=2181\nTWO\ninitLimit=5\nsyncLimit=-1", "syncLimit -1 is below 1"),
    ("dataDir=DIR\nclientPort=2181\nTWO\ngroup.1=1:2:3", "server 3 is in a group, and neither a participant nor given"),
    ("dataDir=DIR\nclientPort=2181\nTWO\ngroup.1=1:2\nweight.1=-1", "For input string: \"-1\""),
    ("dataDir=DIR\nclientPort=2182\nserver.1=a:2:3;2181", "different from client address found in"),
    ("dataDir=DIR\nclientPort=2181\npeerType=observer", "peerType=observer without any server line"),
];

fn write(dir: &Path, lines: &str) -> PathBuf {
    let file = dir.join("zoo.cfg");
    std::fs::write(&file, in_dir(dir, lines)).unwrap();
    file
}

fn in_dir(dir: &Path, text: &str) -> String {
    text.replace("DIR", &dir.display().to_string()).replace("TWO", "server.1=h:1:2\nserver.2=i:1:2")
}

/// A data directory, with dynamic files in it.
fn data_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("dynamic", ""), ("versioned", "server.1=h:1:2\nversion=1"), ("unknown", "tickTime=1")] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn set_myid(dir: &Path, myid: Option<&str>) {
    let path = dir.join("myid");
    match myid {
        Some(text) => std::fs::write(path, text).unwrap(),
        None if path.exists() => std::fs::remove_file(path).unwrap(),
        None => {}
    }
}

#[test]
fn ostler_refuses_what_zookeeper_refuses_with_its_words_and_status_2() {
    let dir = data_dir();
    let both = BOTH.iter().map(|refusal| (refusal.lines, refusal.myid, refusal.words));
    for (lines, myid, words) in both.chain(OURS.iter().map(|(lines, words)| (*lines, None, *words))) {
        set_myid(dir.path(), myid);
        let file = Some(write(dir.path(), lines));
        match config::load(&Sources { file, processors: 1, ..Sources::default() }) {
            Ok(loaded) => panic!("{lines}: started as {:#?}", loaded.config),
            Err(fatal) => {
                let text = fatal.to_string();
                assert!(text.contains(&in_dir(dir.path(), words)), "{lines}: {text}");
                assert_eq!(fatal.exit_status(), 2, "{lines}");
                assert!(text.contains(&dir.path().display().to_string()), "{lines}: {text} names no file");
            }
        }
    }
}

#[test]
fn a_refusal_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "# one\ndataDir=DIR\nclientPort=2181\n\ntickTime=x\n");
    let fatal = config::load(&Sources { file: Some(file.clone()), ..Sources::default() }).unwrap_err();
    assert!(fatal.to_string().starts_with(&format!("{}:5: tickTime", file.display())), "{fatal}");
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars (tools/peers.sh)"]
fn zookeeper_refuses_the_same_files_with_these_words() {
    let dir = data_dir();
    let peers = std::env::var_os("OSTLER_PEERS").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/ostler-peers")
    });
    for refusal in BOTH {
        set_myid(dir.path(), refusal.myid);
        let file = write(dir.path(), &format!("{}\nadmin.enableServer=false\n", refusal.lines));
        let output = Command::new("java")
            .arg("-Xmx100m")
            .arg("-cp")
            .arg(peers.join("java/*"))
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .expect("java starts");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert_eq!(output.status.code(), Some(refusal.zookeeper), "{}: {text}", refusal.lines);
        assert!(text.contains(&in_dir(dir.path(), refusal.words)), "{}: {text}", refusal.lines);
    }
}

/// Prints what `Properties.load` makes of the files 0, 1, 2, … of a directory: code units in hexadecimal.
const JAVA_READER: &str = r#"
import java.io.*; import java.util.*;
public class Reader {
    static String hex(String s) { StringBuilder b = new StringBuilder(); for (char c : s.toCharArray()) b.append(String.format("%04x", (int) c)); return b.toString(); }
    public static void main(String[] args) throws Exception {
        StringBuilder out = new StringBuilder();
        for (int i = 0; new File(args[0], "" + i).exists(); i++) {
            Properties p = new Properties();
            try (InputStream in = new FileInputStream(new File(args[0], "" + i))) {
                p.load(in);
                TreeMap<String, String> sorted = new TreeMap<>();
                for (String key : p.stringPropertyNames()) sorted.put(hex(key), hex(p.getProperty(key)));
                for (Map.Entry<String, String> e : sorted.entrySet()) out.append(e.getKey()).append('=').append(e.getValue()).append(' ');
            } catch (IllegalArgumentException e) { out.append("refused"); }
            out.append('\n');
        }
        System.out.print(out);
    }
}"#;

#[test]
#[ignore = "needs Java"]
fn javas_own_reader_reads_the_same_from_generated_files() {
    let dir = tempfile::tempdir().unwrap();
    let pieces: [&[u8]; 20] = [
        b"a",
        b"b",
        b"=",
        b":",
        b" ",
        b"\t",
        b"\x0c",
        b"\\",
        b"\n",
        b"\r",
        b"\r\n",
        b"#",
        b"!",
        b"\\u0041",
        b"\\u00g1",
        b"\\\n",
        b"\xe4",
        b"\\:",
        b"key=value",
        b"\\\r\n  ",
    ];
    let mut rng = Rng::new(20261125);
    let hex = |text: &str| text.encode_utf16().map(|unit| format!("{unit:04x}")).collect::<String>();
    let mut ours = Vec::new();
    for number in 0..4000 {
        let length = rng.below(14);
        let bytes: Vec<u8> = (0..length).flat_map(|_| pieces[rng.below(20) as usize].to_vec()).collect();
        std::fs::write(dir.path().join(number.to_string()), &bytes).unwrap();
        ours.push(match properties::parse(&bytes) {
            Err(_) => "refused".to_owned(),
            Ok(entries) => {
                let sorted: BTreeMap<String, String> =
                    entries.iter().map(|entry| (hex(&entry.key), hex(&entry.value))).collect();
                // A lone backslash at the end of a file is an entry without a name to Java, if no `\r\n` follows.
                let named = sorted.iter().filter(|(key, _)| !key.is_empty());
                named.map(|(key, value)| format!("{key}={value} ")).collect()
            }
        });
    }
    let source = dir.path().join("Reader.java");
    std::fs::write(&source, JAVA_READER).unwrap();
    let output = Command::new("java").arg(&source).arg(dir.path()).output().expect("java starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = String::from_utf8(output.stdout).unwrap();
    assert_eq!(theirs.lines().count(), ours.len());
    for (number, (java, ostler)) in theirs.lines().zip(&ours).enumerate() {
        let bytes = std::fs::read(dir.path().join(number.to_string())).unwrap();
        // The empty name sorts first.
        let named = if java.starts_with('=') { java.split_once(' ').map_or("", |(_, rest)| rest) } else { java };
        assert_eq!(named, ostler, "{}", bytes.escape_ascii());
    }
}

#[test]
fn every_digest_algorithm_that_may_be_configured_can_be_computed() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "MD5", "SHA1", "SHA-1", "SHA", "SHA-224", "sha-256", "SHA-384", "SHA-512", "SHA3-224", "SHA3-256", "SHA3-384",
        "SHA3-512",
    ] {
        let line = format!("dataDir=DIR\nclientPort=2181\nDigestAuthenticationProvider.digestAlg={name}\n");
        let file = Some(write(dir.path(), &line));
        let loaded = config::load(&Sources { file, ..Sources::default() }).unwrap();
        assert!(ostler::auth::DigestAlgorithm::from_name(&loaded.config.digest_alg).is_some(), "{name}");
    }
}

#[test]
fn the_documentation_has_every_key_and_no_other_and_says_which_are_inert() {
    let text = include_str!("../docs/operations.md");
    let documented = |name: &str| text.contains(&format!("`{name}`"));
    for name in keys::names() {
        assert!(documented(&name), "{name} is not in docs/operations.md");
    }
    // First cells of the tables of keys: what stands there has to be a key.
    let section = text.split("## Keys").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section Keys");
    for line in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cell = line.split('|').next().unwrap_or_default();
        let marked = line.contains("**inert**");
        for name in cell.split('`').step_by(2).filter(|name| !name.is_empty()) {
            let known = keys::find(name).is_some() || keys::names().any(|known| known == name);
            assert!(known, "docs/operations.md names {name}, which is no key");
            // Whoever sets one relies on what its row says: it has to say so where nothing comes of it.
            let inert = keys::find(name).is_some_and(|key| key.does == Does::Used) && !keys::is_acted_on(name);
            assert_eq!(marked, inert, "{name}: marked as inert in docs/operations.md, and inert");
        }
    }
}
