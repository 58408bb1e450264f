use super::*;
use crate::config::servers::Role;
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

fn good(lines: &str) -> Config {
    with(lines).unwrap_or_else(|fatal| panic!("{lines}: {fatal}")).config
}

/// The same file with `-D` settings.
fn defined(defines: &[&str], lines: &str) -> Loaded {
    let defines = defines.iter().map(|define| define.to_string()).collect();
    let text = format!("dataDir=/data\nclientPort=2181\n{lines}");
    interpret(&Sources { defines, ..sources() }, text.as_bytes(), Vec::new()).expect("it starts")
}

fn says(notices: &[Notice], level: Level, text: &str) {
    let found = notices.iter().any(|notice| notice.level == level && notice.text.contains(text));
    assert!(found, "{level:?} {text:?} not in {notices:#?}");
}

#[test]
fn a_sample_file_is_read() {
    let text = "# The number of milliseconds of each tick\ntickTime=2000\ninitLimit=10\nsyncLimit=5\n\
                dataDir=/nowhere/zookeeper\ndataLogDir : /log\nclientPort 2182\nmaxClientCnxns=0\n\
                4lw.commands.whitelist=ruok, mntr\nskipACL=yes\nextendedTypesEnabled=TRUE\n";
    let Loaded { config, notices } = read(text).unwrap();
    assert_eq!(config.snapshot_dir(), PathBuf::from("/nowhere/zookeeper/version-2"));
    assert_eq!(config.log_dir(), PathBuf::from("/log/version-2"));
    assert_eq!((config.client_port, config.max_client_cnxns, config.tick_time_ms), (2182, 0, 2000));
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (4_000, 40_000));
    assert_eq!(config.four_letter_words.words, ["ruok", "mntr"]);
    assert!(config.skip_acl);
    assert_eq!(config.owner_rules, OwnerRules { extended_types: true, emulate_353_ttl: false });
    assert_eq!((notices.len(), config.ensemble), (1, None), "only skipACL is worth a line: {notices:#?}");
}

#[test]
fn defaults_are_zookeepers() {
    let config = good("");
    let expected = Config {
        file: Some("/etc/zoo.cfg".into()),
        data_dir: "/data".into(),
        data_log_dir: "/data".into(),
        tick_time_ms: 3_000,
        min_session_timeout_ms: 6_000,
        max_session_timeout_ms: 60_000,
        ..Config::defaults(2)
    };
    assert_eq!(config, expected);
    assert_eq!(config.jute_max_buffer, 1_048_575);
    assert_eq!((config.snap_count, config.max_client_cnxns), (100_000, 60));
    assert_eq!(config.snap_size_limit_bytes, Some(4_194_304 * 1024));
}

#[test]
fn without_a_file_there_is_a_server_on_2181() {
    let loaded = interpret(&Sources { processors: 8, ..Sources::default() }, b"", Vec::new()).unwrap();
    assert_eq!(loaded.config, Config::defaults(8));
    assert_eq!((loaded.config.client_port, loaded.config.tick_time_ms, loaded.config.cores), (2181, 2000, 7));
    assert_eq!(loaded.config.data_dir, PathBuf::from("ostler-data"));
    assert_eq!(loaded.notices, []);
}

#[test]
fn the_form_without_a_file_sets_four_things() {
    let positional =
        Positional { client_port: 0, data_dir: "/d".into(), tick_time_ms: Some(500), max_client_cnxns: Some(9) };
    let sources = Sources {
        positional: Some(positional),
        defines: vec!["zookeeper.snapCount=1".into()],
        processors: 1,
        ..Sources::default()
    };
    let config = interpret(&sources, b"", Vec::new()).unwrap().config;
    assert_eq!((config.client_port, config.tick_time_ms, config.max_client_cnxns), (0, 500, 9));
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (1_000, 10_000));
    assert_eq!((config.data_dir, config.data_log_dir), ("/d".into(), "/d".into()));
    assert_eq!(config.snap_count, 2, "a lower one is raised");
}

#[test]
fn the_form_without_a_file_has_zookeepers_defaults() {
    let positional =
        Positional { client_port: 2181, data_dir: "/d".into(), tick_time_ms: None, max_client_cnxns: None };
    let sources = Sources { positional: Some(positional), processors: 1, ..Sources::default() };
    let config = interpret(&sources, b"", Vec::new()).unwrap().config;
    assert_eq!((config.tick_time_ms, config.max_client_cnxns), (3_000, 0));
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (6_000, 60_000));
}

#[test]
fn every_key_reaches_its_field() {
    type Check = fn(&Config) -> bool;
    let table: &[(&str, Check)] = &[
        ("clientPortAddress=127.0.0.1", |config| config.client_port_address == Some([127, 0, 0, 1].into())),
        ("clientPortAddress=::", |config| config.client_port_address.is_none()),
        // IPv6 too: Java binds it as `::` on a machine that has both.
        ("clientPortAddress=0.0.0.0", |config| config.client_port_address.is_none()),
        ("clientPortListenBacklog=7", |config| config.client_port_listen_backlog == Some(7)),
        ("clientPortListenBacklog=-1", |config| config.client_port_listen_backlog.is_none()),
        ("maxClientCnxns=-5", |config| config.max_client_cnxns == 0),
        ("maxCnxns=3", |config| config.max_cnxns == 3),
        ("clientTcpKeepAlive=true", |config| config.client_tcp_keep_alive),
        ("nio.sessionlessCnxnTimeout=5", |config| config.sessionless_cnxn_timeout_ms == 5),
        ("tickTime=1", |config| (config.min_session_timeout_ms, config.max_session_timeout_ms) == (2, 20)),
        ("tickTime=2147483647", |config| config.max_session_timeout_ms == i32::MAX as u32),
        ("minSessionTimeout=-1", |config| config.min_session_timeout_ms == 6_000),
        ("maxSessionTimeout=100000", |config| config.max_session_timeout_ms == 100_000),
        ("jute.maxbuffer=0x400000", |config| {
            (config.jute_max_buffer, config.jute_max_buffer_extra) == (4 << 20, 4 << 20)
        }),
        ("jute.maxbuffer.extrasize=9000", |config| config.jute_max_buffer_extra == 9_000),
        // What a follower sends with a request has to fit.
        ("jute.maxbuffer.extrasize=9", |config| config.jute_max_buffer_extra == 1_024),
        ("globalOutstandingLimit=5", |config| config.global_outstanding_limit == 5),
        ("largeRequestMaxBytes=5", |config| config.large_request_max_bytes == 5),
        ("largeRequestThreshold=5", |config| config.large_request_threshold == Some(5)),
        ("maxResponseCacheSize=0", |config| config.max_response_cache_size == 0),
        ("maxGetChildrenResponseCacheSize=1", |config| config.max_get_children_response_cache_size == 1),
        ("request_throttler.shutdownTimeout=1", |config| config.shutdown_timeout_ms == 1),
        ("extendedTypesEnabled=true\nemulate353TTLNodes=True", |config| config.owner_rules.emulate_353_ttl),
        ("enforceQuota=true", |config| config.enforce_quota),
        ("digest.enabled=false", |config| !config.digest_enabled),
        ("closeSessionTxn.enabled=no", |config| !config.close_session_txn_enabled),
        ("znode.container.checkIntervalMs=1", |config| config.containers.check_interval_ms == 1),
        ("znode.container.maxPerMinute=1", |config| config.containers.max_per_minute == 1),
        ("znode.container.maxNeverUsedIntervalMs=1", |config| config.containers.max_never_used_ms == 1),
        ("skipACL=true", |config| !config.skip_acl),
        ("DigestAuthenticationProvider.enabled=false", |config| !config.digest_auth_enabled),
        ("DigestAuthenticationProvider.superDigest=super:x=", |config| {
            config.super_digest.as_deref() == Some("super:x=")
        }),
        ("DigestAuthenticationProvider.digestAlg=sha-1", |config| config.digest_alg == "SHA-1"),
        ("snapCount=5", |config| config.snap_count == 5),
        ("snapSizeLimitInKb=0", |config| config.snap_size_limit_bytes.is_none()),
        ("txnLogSizeLimitInKb=2", |config| config.txn_log_size_limit_bytes == Some(2048)),
        ("preAllocSize=2", |config| config.pre_alloc_bytes == Some(2048)),
        ("forceSync=no", |config| !config.force_sync),
        ("forceSync=false", |config| config.force_sync),
        ("fsync.warningthresholdms=2", |config| config.fsync_warning_threshold_ms == 2),
        ("flushDelay=2", |config| config.flush_delay_ms == 2),
        ("maxBatchSize=2", |config| config.max_batch_size == 2),
        ("autopurge.snapRetainCount=1", |config| config.purge.snap_retain_count == 3),
        ("autopurge.purgeInterval=0", |config| config.purge.when == PurgeWhen::Never),
        ("autopurge.purgeInterval=24", |config| config.purge.when == PurgeWhen::EveryHours(24)),
        ("4lw.commands.whitelist=*", |config| config.four_letter_words.all),
        ("readonlymode.enabled=true", |config| config.read_only_mode),
        ("ostler.coreOutputBytes=67108864", |config| config.core_output_bytes == 67_108_864),
        ("ostler.connectionWatchBytes=65536", |config| config.connection_watch_bytes == 65_536),
        ("ostler.cores=5\nostler.pinCores=true", |config| (config.cores, config.pin_cores) == (5, true)),
        ("connectionMaxTokens=7", |config| {
            config.connection_throttle.as_ref().is_some_and(|throttle| {
                (throttle.tokens, throttle.global_session_weight, throttle.drop_increase) == (7, 1, 0.02)
            })
        }),
        ("connection_throttle_tokens=7\nconnection_throttle_weight_enabled=true", |config| {
            config.connection_throttle.as_ref().is_some_and(|throttle| throttle.global_session_weight == 3)
        }),
        ("connection_throttle_fill_time=7", |config| config.connection_throttle.is_none()),
        ("requestThrottleLimit=7\nrequest_throttle_stall_time=5\nthrottled_op_wait_time=9", |config| {
            config.request_throttle.as_ref().is_some_and(|throttle| {
                (throttle.max_requests, throttle.stall_time_ms, throttle.throttled_op_wait_ms) == (7, 5, Some(9))
            })
        }),
    ];
    for (lines, check) in table {
        assert!(check(&good(lines)), "{lines}: {:#?}", good(lines));
    }
}

#[test]
fn the_file_wins_over_the_command_line_and_that_over_the_environment() {
    let all = Sources {
        server_jvm_flags: Some("-Dzookeeper.snapCount=10 -Dzookeeper.maxCnxns=10 -Dzookeeper.preAllocSize=10".into()),
        jvm_flags: Some("-Xmx1g -Dzookeeper.maxCnxns=20 -Dzookeeper.preAllocSize=20".into()),
        defines: vec!["zookeeper.preAllocSize=30".into(), "zookeeper.flushDelay=30".into()],
        ..sources()
    };
    let loaded = interpret(&all, b"dataDir=/d\nclientPort=1\nflushDelay=40\n", Vec::new()).unwrap();
    let config = loaded.config;
    assert_eq!((config.snap_count, config.max_cnxns), (10, 20));
    assert_eq!((config.pre_alloc_bytes, config.flush_delay_ms), (Some(30 << 10), 40));
    says(&loaded.notices, Level::Info, "JVMFLAGS: -Xmx1g is for a JVM");
}

#[test]
fn prefixes_count_as_they_do_in_zookeeper_and_more_where_it_is_meant() {
    let loaded = defined(&["zookeeper.extendedTypesEnabled=true", "jute.maxbuffer=5"], "");
    assert!(loaded.config.owner_rules.extended_types);
    assert_eq!((loaded.config.jute_max_buffer, loaded.notices.len()), (5, 0));

    let loaded = defined(&["extendedTypesEnabled=true", "zookeeper.tickTime=1", "java.net.preferIPv4Stack=true"], "");
    assert!(!loaded.config.owner_rules.extended_types);
    assert_eq!(loaded.config.tick_time_ms, 3000);
    says(&loaded.notices, Level::Warn, "-DextendedTypesEnabled has no effect; -Dzookeeper.extendedTypesEnabled has");
    says(&loaded.notices, Level::Warn, "-Dzookeeper.tickTime has no effect; this key is read from the file only");
    says(&loaded.notices, Level::Info, "-Djava.net.preferIPv4Stack is for a JVM");

    let loaded = defined(&["zookeeper.jute.maxbuffer=6", "fsync.warningthresholdms=7"], "zookeeper.snapCount=8");
    assert_eq!((loaded.config.jute_max_buffer, loaded.config.fsync_warning_threshold_ms), (6, 7));
    assert_eq!(loaded.config.snap_count, 8);
    says(&loaded.notices, Level::Info, "-Dzookeeper.jute.maxbuffer is taken as -Djute.maxbuffer");
    says(&loaded.notices, Level::Info, "line 3: zookeeper.snapCount is taken as snapCount");

    let strict = "ostler.strictProperties=true\njute.maxbuffer=9\nzookeeper.snapCount=8";
    let config = defined(&["zookeeper.jute.maxbuffer=6"], strict).config;
    assert_eq!((config.jute_max_buffer, config.snap_count), (1_048_575, 100_000));
}

#[test]
fn a_property_that_begins_as_a_server_line_is_none() {
    let defines = ["zookeeper.server.realm=EXAMPLE", "zookeeper.server.principal=zookeeper/host"];
    let notices = defined(&defines, "").notices;
    says(&notices, Level::Info, "command line: server.realm=EXAMPLE has no effect: this build does not have SASL yet");
    says(&notices, Level::Info, "command line: server.principal=zookeeper/host has no effect: it is a setting of");
    let flags = defines.map(|define| format!("-D{define}")).join(" ");
    let dir = tempfile::tempdir().unwrap();
    let dynamic = dir.path().join("zoo.cfg.dynamic");
    std::fs::write(&dynamic, "server.1=a:1:2;2181\n").unwrap();
    let text = format!("dataDir=/data\ndynamicConfigFile={}\n", dynamic.display());
    let sources = Sources { server_jvm_flags: Some(flags), ..sources() };
    let loaded = interpret(&sources, text.as_bytes(), Vec::new()).expect("it starts");
    assert_eq!(loaded.config.server_id, 1);
    says(&loaded.notices, Level::Info, "SERVER_JVMFLAGS: server.realm=EXAMPLE has no effect");
    assert!(with("server.realm=EXAMPLE").is_err(), "in the file it is a server line");
}

#[test]
fn what_is_strict_is_so_as_far_as_in_zookeeper() {
    good(
        "jvm.pause.warn-threshold.ms=3000000000\njvm.pause.info-threshold.ms=-1\njvm.pause.sleep.time.ms=9223372036854775807",
    );
    assert!(with("jvm.pause.sleep.time.ms=9223372036854775808").is_err());
    // A property is true or it is false; the same word in the file stops the start.
    let flag = "-Dzookeeper.multiAddress.enabled=yes";
    let notices = defined(&[&flag[2..], "zookeeper.multiAddress.reachabilityCheckEnabled=1"], "").notices;
    says(&notices, Level::Warn, "command line: multiAddress.enabled=yes is neither true nor false; it counts as false");
    says(&notices, Level::Warn, "multiAddress.reachabilityCheckEnabled=1 is neither true nor false");
    assert!(with("multiAddress.enabled=yes").is_err());
    let two = "initLimit=1\nsyncLimit=1\nserver.1=a:1:2|b:1:2\nserver.2=c:1:2\n";
    let start = |flags: &str| {
        let sources = Sources { jvm_flags: Some(flags.into()), ..sources() };
        interpret(&sources, format!("dataDir=/data\nclientPort=1\n{two}").as_bytes(), Vec::new())
            .unwrap_err()
            .to_string()
    };
    assert!(start(flag).contains("Multiple address feature is disabled"), "{}", start(flag));
    assert!(start("-Dzookeeper.multiAddress.enabled=TRUE").contains("myid"), "the lines are taken");
}

#[test]
fn what_zookeeper_keeps_to_itself_is_said() {
    let table = [
        (
            Level::Warn,
            "MaxClientCnxns=5",
            "line 3: MaxClientCnxns is unknown and has no effect; maxClientCnxns is known",
        ),
        (Level::Warn, "failLimit=5", "line 3: failLimit is unknown"),
        (Level::Warn, "tickTime=1\ntickTime=2", "tickTime is set in line 3 and again in line 4; the last one counts"),
        (Level::Warn, "skipACL=true", "line 3: skipACL=true is neither yes nor no; no counts"),
        (Level::Warn, "skipACL=yes", "everyone may do everything"),
        (Level::Warn, "flushDelay=1", "line 3: flushDelay=1 is read, but this build does not act on it yet"),
        (Level::Warn, "enforceQuota=1", "line 3: enforceQuota=1 is neither true nor false; it counts as false"),
        (Level::Warn, "snapCount=1h", "line 3: snapCount=1h is not a number; 100000 counts"),
        (Level::Warn, "maxCnxns=99999999999", "maxCnxns=99999999999 is not a number; 0 counts"),
        (Level::Warn, "autopurge.snapRetainCount=1", "Invalid autopurge.snapRetainCount: 1. Defaulting to 3"),
        (Level::Warn, "connectionDropIncrease=7", "is not a number within 0 and 1; 0.02 counts"),
        (
            Level::Warn,
            "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
            "is not in this build",
        ),
        (Level::Error, "secureClientPort=2281", "secureClientPort 2281 is not opened: this build has no TLS yet"),
        (Level::Error, "server.1=h:2888:3888", "only one server specified (ignoring)"),
        (
            Level::Info,
            "jute.maxbuffer=9",
            "line 3: jute.maxbuffer counts, though in ZooKeeper only -Djute.maxbuffer would",
        ),
        (Level::Info, "observerMasterPort=5", "line 3: observerMasterPort=5 has no effect: this build does not have"),
        (Level::Warn, "commitLogCount=5", "line 3: commitLogCount=5 is read, but this build does not act on it yet"),
        (Level::Info, "ssl.keyStore.password=geheim", "line 3: ssl.keyStore.password=*** has no effect"),
        (Level::Info, "serverCnxnFactory=x.NettyServerCnxnFactory", "there is one kind of listener"),
        (Level::Info, "watchManagerName=x", "it tunes threads or buffers of the Java server"),
        (Level::Info, "client.secure=true", "it is a setting of clients"),
        (Level::Info, "admin.enableServer=true", "does not have the admin port yet"),
    ];
    for (level, lines, text) in table {
        says(&with(lines).unwrap_or_else(|fatal| panic!("{lines}: {fatal}")).notices, level, text);
    }
    assert_eq!(with("sslQuorum=false\nauthProvider.1=x.y\n").map_err(|fatal| fatal.exit_status()).err(), Some(2));
}

#[test]
fn required_schemes_and_the_digest_algorithm_are_taken() {
    let required = with("enforce.auth.enabled=true\nenforce.auth.schemes=digest, ip").unwrap();
    assert_eq!(required.config.required_auth_schemes, ["digest", "ip"]);
    let hashed = with("DigestAuthenticationProvider.digestAlg=sha-256").unwrap();
    assert_eq!(hashed.config.digest_alg, "SHA-256");
}

#[test]
fn no_secret_reaches_the_log() {
    let lines = "DigestAuthenticationProvider.superDigest=super:geheim\nssl.trustStore.password=geheim\n\
                 SASLAuthenticationProvider.superPassword=geheim\nunknown.password=geheim\n";
    for notice in with(lines).unwrap().notices {
        assert!(!notice.text.contains("geheim"), "{}", notice.text);
    }
}

#[test]
fn the_only_server_of_an_ensemble_runs_alone_and_takes_its_port_from_its_line() {
    let text = "dataDir=/nowhere\nserver.1=localhost:2888:3888;2191\ngroup.1=1\n";
    let config = read(text).unwrap().config;
    assert_eq!((config.client_port, config.server_id, config.client_port_address), (2191, 1, None));
    let text = "dataDir=/nowhere\nserver.1=localhost:2888:3888;127.0.0.1:2191\n";
    assert_eq!(read(text).unwrap().config.client_port_address, Some([127, 0, 0, 1].into()));
    assert_eq!(good("server.1=h:1:2;2181").client_port, 2181);
}

#[test]
fn files_that_cannot_be_a_configuration_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zoo.cfg");
    let load_file = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        load(&Sources { file: Some(path.clone()), ..Sources::default() })
    };
    assert!(load_file(b"dataDir=/d\nclientPort=1\n").is_ok());
    let problem = load_file(b"dataDir=/d\nclientPort=1\0\n").unwrap_err().to_string();
    assert_eq!(problem, format!("{}:2: a NUL byte; this is not a text file", path.display()));
    let problem = load_file(&vec![b'#'; FILE_BYTES_MAX as usize + 1]).unwrap_err().to_string();
    assert!(problem.contains("larger than 1048576 bytes"), "{problem}");
    assert!(load_file(&[b"dataDir=/d\nclientPort=1\n#", vec![b'#'; 1 << 19].as_slice()].concat()).is_ok());
    let missing = load(&Sources { file: Some(dir.path().join("none")), ..Sources::default() }).unwrap_err();
    assert!(missing.to_string().contains("file is missing"));
    assert_eq!(missing.exit_status(), 2);
    let directory = load(&Sources { file: Some(dir.path().into()), ..Sources::default() }).unwrap_err();
    assert_eq!(directory.exit_status(), 2);
}

#[test]
fn a_file_full_of_nonsense_is_read_and_told_briefly() {
    let mut text = String::from("dataDir=/d\nclientPort=1\n");
    for number in 0.. {
        if text.len() as u64 > FILE_BYTES_MAX - 10 {
            break;
        }
        text.push_str(&format!("{number:x}\n"));
    }
    let notices = read(&text).unwrap().notices;
    assert_eq!(notices.len(), NOTICES_MAX + 1);
    assert!(notices[NOTICES_MAX].text.ends_with("more of these"));
}

#[test]
fn a_dynamic_file_is_read_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let dynamic = dir.path().join("dynamic");
    let text = format!("dataDir={0}\ndynamicConfigFile={0}/dynamic\n", dir.path().display());
    std::fs::write(&dynamic, "server.1=h:2888:3888:participant;2199\n").unwrap();
    assert_eq!(read(&text).unwrap().config.client_port, 2199);
    let both = read(&format!("{text}server.2=h:1:2\n")).unwrap_err().to_string();
    assert!(both.contains("parameter: server.2 must be in a separate dynamic config file"), "{both}");
    std::fs::write(&dynamic, "server.1=h:2888:3888;2199\ntickTime=5\n").unwrap();
    let unknown = read(&text).unwrap_err().to_string();
    assert_eq!(unknown, format!("{}:2: Unrecognised parameter: tickTime", dynamic.display()));
    std::fs::remove_file(&dynamic).unwrap();
    assert_eq!(read(&text).unwrap_err().exit_status(), 2);
}

#[test]
fn a_myid_that_is_no_number_stops_the_start_and_another_number_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("dataDir={}\nserver.1=h:1:2;2181\n", dir.path().display());
    std::fs::write(dir.path().join("myid"), " 1 \n").unwrap();
    assert_eq!(read(&text).unwrap().notices.len(), 1, "only the line about the only server");
    std::fs::write(dir.path().join("myid"), "9\n").unwrap();
    says(&read(&text).unwrap().notices, Level::Warn, "says 9, and the only server line has id 1");
    std::fs::write(dir.path().join("myid"), "abc").unwrap();
    assert!(read(&text).unwrap_err().to_string().ends_with("serverid abc is not a number"));
}

/// Members 1 to 3 on one host, and what an ensemble has to say.
const THREE: &str = "clientPort=2181\ninitLimit=10\nsyncLimit=5\n\
                     server.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888\n";

/// Reads a file whose `dataDir` holds this `myid`.
fn member(myid: &str, lines: &str) -> Result<Loaded, Fatal> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("myid"), myid).unwrap();
    read(&format!("dataDir={}\n{lines}", dir.path().display()))
}

fn ensemble(myid: &str, lines: &str) -> Ensemble {
    let loaded = member(myid, lines).unwrap_or_else(|fatal| panic!("{lines}: {fatal}"));
    loaded.config.ensemble.unwrap_or_else(|| panic!("{lines}: not an ensemble"))
}

#[test]
fn three_servers_are_an_ensemble_with_zookeepers_defaults() {
    let Loaded { config, notices } = member(" 2 \n", THREE).unwrap();
    assert_eq!(notices, []);
    assert_eq!((config.server_id, config.client_port), (2, 2181));
    let ensemble = config.ensemble.unwrap();
    assert_eq!((ensemble.my_line().addresses[0].host.as_str(), ensemble.my_line().role), ("b", Role::Participant));
    let expected = Ensemble {
        me: 2,
        lines: ["a", "b", "c"].iter().zip(1..).map(|(host, id)| server(id, host)).collect(),
        groups: vec![],
        weights: vec![],
        version: 0,
        init_limit: 10,
        sync_limit: 5,
        connect_to_learner_master_limit: 10,
        quorum_listen_on_all_ips: false,
        multi_address: false,
        cnx_timeout_ms: 5_000,
        quorum_cnxn_timeout_ms: None,
        election_bind_retries: 3,
        tcp_keep_alive: false,
        min_notification_interval_ms: 200,
        max_notification_interval_ms: 2_000,
        observer_election_delay_ms: 200,
        observer_reconnect_delay_ms: 0,
        max_time_to_wait_for_epoch_ms: None,
        leader_connect_delay_ms: 100,
        leader_serves: true,
        max_concurrent_snap_syncs: 10,
        max_concurrent_diff_syncs: 100,
        force_snapshot_sync: false,
        commit_log_count: 500,
        snapshot_size_factor: 0.33,
        db_autocreate: true,
    };
    assert_eq!(ensemble, expected);
}

fn server(id: u64, host: &str) -> servers::ServerLine {
    servers::parse_server(&id.to_string(), &format!("{host}:2888:3888")).unwrap()
}

#[test]
fn every_key_of_an_ensemble_reaches_its_field() {
    type Check = fn(&Ensemble) -> bool;
    let table: &[(&str, Check)] = &[
        ("group.1=1:2\ngroup.-2=3:\nweight.3=4", |of| {
            (of.groups.as_slice(), of.weights.as_slice()) == (&[(1, vec![1, 2]), (-2, vec![3])], &[(3, 4)])
        }),
        ("initLimit=7\nsyncLimit=3", |of| {
            (of.init_limit, of.sync_limit, of.connect_to_learner_master_limit) == (7, 3, 7)
        }),
        ("connectToLearnerMasterLimit=4", |of| of.connect_to_learner_master_limit == 4),
        ("connectToLearnerMasterLimit=-4", |of| of.connect_to_learner_master_limit == 10),
        ("cnxTimeout=7\nquorumCnxnTimeoutMs=8", |of| (of.cnx_timeout_ms, of.quorum_cnxn_timeout_ms) == (7, Some(8))),
        ("quorumListenOnAllIPs=TRUE\ntcpKeepAlive=true", |of| of.quorum_listen_on_all_ips && of.tcp_keep_alive),
        ("electionPortBindRetry=0", |of| of.election_bind_retries == 0),
        ("electionPortBindRetry=-1", |of| of.election_bind_retries == 3),
        ("fastleader.minNotificationInterval=100\nfastleader.maxNotificationInterval=50", |of| {
            (of.min_notification_interval_ms, of.max_notification_interval_ms) == (100, 100)
        }),
        ("fastleader.maxNotificationInterval=60000", |of| of.max_notification_interval_ms == 60_000),
        ("observer.election.DelayMs=1\nobserver.reconnectDelayMs=2", |of| {
            (of.observer_election_delay_ms, of.observer_reconnect_delay_ms) == (1, 2)
        }),
        ("leader.maxTimeToWaitForEpoch=1\nleaderConnectDelayDuringRetryMs=2", |of| {
            (of.max_time_to_wait_for_epoch_ms, of.leader_connect_delay_ms) == (Some(1), 2)
        }),
        ("leaderServes=no", |of| !of.leader_serves),
        ("leaderServes=false", |of| of.leader_serves),
        ("leader.maxConcurrentSnapSyncs=1\nmaxConcurrentDiffSyncs=2", |of| {
            (of.max_concurrent_snap_syncs, of.max_concurrent_diff_syncs) == (1, 2)
        }),
        ("forceSnapshotSync=true\ndb.autocreate=false", |of| of.force_snapshot_sync && !of.db_autocreate),
        ("commitLogCount=9\nsnapshotSizeFactor=0.5", |of| (of.commit_log_count, of.snapshot_size_factor) == (9, 0.5)),
        ("snapshotSizeFactor=x", |of| of.snapshot_size_factor == 0.33),
        ("multiAddress.enabled=true\nserver.4=d:1:2|e:1:2", |of| of.multi_address && of.lines[3].addresses.len() == 2),
    ];
    for (lines, check) in table {
        let found = ensemble("1", &format!("{THREE}{lines}\n"));
        assert!(check(&found), "{lines}: {found:#?}");
    }
}

#[test]
fn who_counts_as_an_ensemble() {
    let limits = "initLimit=10\nsyncLimit=5\n";
    let two = format!("clientPort=0\n{limits}server.1=a:1:2\nserver.2=b:1:2\n");
    assert_eq!(ensemble("2", &two).lines.len(), 2);
    let observer = ensemble("4", &format!("{THREE}server.4=d:1:2:observer\npeerType=observer\n"));
    assert_eq!((observer.me, observer.my_line().role), (4, Role::Observer));
    let one = format!("clientPort=0\n{limits}server.1=a:1:2\n");
    assert_eq!(member("1", &one).unwrap().config.ensemble, None);
    assert_eq!(ensemble("1", &format!("{one}standaloneEnabled=false\n")).lines.len(), 1);
    let watched = format!("{one}standaloneEnabled=false\nserver.2=b:1:2:observer\n");
    assert_eq!(ensemble("2", &watched).my_line().role, Role::Observer);
    // Of two lines with one id the last counts, in whatever form the id is written.
    assert_eq!(member("1", &format!("{one}server.01=b:1:2\n")).unwrap().config.ensemble, None);
}

#[test]
fn what_is_odd_about_an_ensemble_is_told() {
    let table = [
        ("server.4=d:1:2", "Non-optimal configuration, consider an odd number of servers."),
        ("server.3=c:2888:3888:observer", "No server failure will be tolerated. You need at least 3 servers."),
        (
            "peerType=observer",
            "Peer type from servers list (PARTICIPANT) doesn't match peerType (OBSERVER). Defaulting to servers list.",
        ),
        ("server.3=a:3888:3889", "server.1 and server.3 both have a:3888"),
        ("reconfigEnabled=true", "this build can't change the members of a running ensemble"),
        ("leaderServes=no", "leaderServes=no is read, but this build does not act on it yet"),
        ("snapshotSizeFactor=x", "snapshotSizeFactor=x is not a number; 0.33 counts"),
    ];
    for (lines, text) in table {
        says(&member("1", &format!("{THREE}{lines}\n")).unwrap().notices, Level::Warn, text);
    }
}

#[test]
fn the_client_port_of_a_member_may_stand_in_its_line() {
    let limits = "initLimit=10\nsyncLimit=5\nserver.2=b:1:2;9\n";
    let address = |lines: &str| {
        let config = member("1", &format!("{limits}{lines}\n")).unwrap_or_else(|fatal| panic!("{fatal}")).config;
        (config.client_port, config.client_port_address.map(|address| address.to_string()))
    };
    let local = Some("127.0.0.1".to_owned());
    assert_eq!(address("server.1=a:1:2;2181"), (2181, None));
    assert_eq!(address("server.1=a:1:2;127.0.0.1:2181"), (2181, local.clone()));
    assert_eq!(address("clientPort=2181\nserver.1=a:1:2;127.0.0.1:2181"), (2181, local.clone()));
    assert_eq!(
        address("clientPort=2181\nclientPortAddress=0.0.0.0\nserver.1=a:1:2;127.0.0.1:2181"),
        (2181, local.clone())
    );
    assert_eq!(address("clientPort=2181\nclientPortAddress=127.0.0.1\nserver.1=a:1:2"), (2181, local));
    for (lines, found) in [
        ("clientPort=2182\nserver.1=a:1:2;2181", "is port 2182 and is different from client address found in"),
        ("clientPort=2181\nclientPortAddress=127.0.0.2\nserver.1=a:1:2;2181", "127.0.0.2 port 2181 and is different"),
    ] {
        let problem = member("1", &format!("{limits}{lines}\n")).unwrap_err().to_string();
        assert!(problem.contains(found), "{lines}: {problem}");
    }
}

#[test]
fn a_dynamic_file_names_its_version_and_an_unfinished_reconfiguration_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let lines = "server.1=a:1:2;2199\nserver.2=b:1:2;2199\n";
    std::fs::write(at("myid"), "2").unwrap();
    std::fs::write(at("zoo.cfg.dynamic.1000000a5"), lines).unwrap();
    let text = format!(
        "dataDir={0}\ninitLimit=1\nsyncLimit=1\ndynamicConfigFile={0}/zoo.cfg.dynamic.1000000a5\n",
        dir.path().display()
    );
    std::fs::write(at("zoo.cfg"), text).unwrap();
    let start = || load(&Sources { file: Some(at("zoo.cfg")), ..Sources::default() });
    let ensemble = start().unwrap().config.ensemble.unwrap();
    assert_eq!((ensemble.version, ensemble.me, ensemble.lines.len()), (0x1_0000_00a5, 2, 2));

    std::fs::write(at("zoo.cfg.dynamic.next"), format!("{lines}version=1000000a5")).unwrap();
    assert!(start().is_ok(), "the reconfiguration is in force");
    std::fs::write(at("zoo.cfg.dynamic.next"), format!("{lines}version=1000000a6")).unwrap();
    let problem = start().unwrap_err().to_string();
    assert!(problem.contains("a reconfiguration to version 1000000a6 was proposed"), "{problem}");
}

#[test]
fn an_id_that_would_break_sessions_is_refused() {
    let lines = format!("{THREE}server.255=d:1:2\n");
    assert_eq!(ensemble("255", &lines).me, 255);
    let problem = member("255", &format!("{lines}extendedTypesEnabled=true\n")).unwrap_err().to_string();
    assert!(problem.contains("id 255 can't be used with extendedTypesEnabled=true"), "{problem}");
    assert!(member("1", &format!("{THREE}server.256=d:1:2\n")).unwrap_err().to_string().contains("above 255"));
}

proptest::proptest! {
    #[test]
    fn no_file_and_no_flags_make_it_panic(
        lines in "((tickTime|skipACL|server\\.1|jute.maxbuffer|ostler.cores|zookeeper\\.|[a-zA-Z.]{1,12})[=: ][-0-9a-z:;#\\\\]{0,12}\n){0,8}",
        flags in "[-Da-z=\"' \\\\.]{0,40}",
    ) {
        let sources = Sources { server_jvm_flags: Some(flags.clone()), defines: vec![flags], ..sources() };
        let _ = interpret(&sources, format!("dataDir=/nowhere\nclientPort=1\n{lines}").as_bytes(), Vec::new());
    }
}
