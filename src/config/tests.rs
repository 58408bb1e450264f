use super::*;
use crate::ids::OwnerRules;

fn sources() -> Sources {
    Sources { file: Some(PathBuf::from("/etc/zoo.cfg")), processors: 2, ..Sources::default() }
}

fn read(text: &str) -> Result<Loaded, Fatal> {
    interpret(&sources(), text.as_bytes(), Vec::new())
}

/// Of a file that has what every file needs, and these lines.
fn with(lines: &str) -> Result<Loaded, Fatal> {
    read(&format!("dataDir=/data\nclientPort=2181\n{lines}"))
}

#[test]
fn a_sample_file_is_read() {
    let text = "# The number of milliseconds of each tick\ntickTime=2000\ninitLimit=10\nsyncLimit=5\n\
                dataDir=/var/lib/zookeeper\ndataLogDir : /log\nclientPort 2182\nmaxClientCnxns=0\n\
                4lw.commands.whitelist=ruok, mntr\nskipACL=yes\nextendedTypesEnabled=TRUE\n";
    let Loaded { config, notices } = read(text).unwrap();
    assert_eq!(config.snapshot_dir(), PathBuf::from("/var/lib/zookeeper/version-2"));
    assert_eq!(config.log_dir(), PathBuf::from("/log/version-2"));
    assert_eq!((config.client_port, config.max_client_cnxns, config.tick_time_ms), (2182, 0, 2000));
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (4_000, 40_000));
    assert_eq!(config.four_letter_words.words, ["ruok", "mntr"]);
    assert!(config.skip_acl);
    assert_eq!(config.owner_rules, OwnerRules { extended_types: true, emulate_353_ttl: false });
    assert_eq!(notices.iter().filter(|notice| notice.text.contains("no ensembles yet")).count(), 2);
}

#[test]
fn a_key_of_the_wrong_case_is_told() {
    let notices = with("MaxClientCnxns=5\n").unwrap().notices;
    assert!(
        notices.iter().any(|notice| notice.level == Level::Warn && notice.text.contains("maxClientCnxns is known"))
    );
}
