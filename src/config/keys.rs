//! Every key that ZooKeeper 3.9.5 knows, where it may stand, and what this build does about it.
//!
//! A server that takes another's place is started with that one's file. So no key may stop the start merely because
//! the part that it speaks of isn't here; and a key that protects something must stop it, because the operator
//! believes to be protected. This table is that decision, key by key; `docs/operations.md` says the same to people,
//! and a test holds the two together.
//!
//! Runs on: the starting thread.

/// How ZooKeeper gets to see a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Only in the file.
    File,
    /// In the file, or as `-Dzookeeper.key=`.
    Property,
    /// As `-Dkey=` without prefix. In ZooKeeper it has no effect in the file; here it has.
    Bare,
    /// In the file, or as `-Dkey=`: our own keys, and `fsync.warningthresholdms` (also with the prefix).
    Both,
}

/// What this build does about a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Does {
    /// Read into a field of `Config`, or checked while reading.
    Used,
    /// Of a part that isn't here yet, named by the text. One line, no effect.
    Later(&'static str),
    /// There is nothing here that it could change, for the reason in the text. One line, no effect.
    Nothing(&'static str),
    /// Without it something would be less protected than the operator believes. Any value but the harmless ones stops
    /// the start.
    Protects { harmless: Harmless, why: &'static str },
}

/// Values of a protecting key that ask for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Harmless {
    /// Anything but `true` in any case.
    NotTrue,
    /// One of these, in any case.
    OneOf(&'static [&'static str]),
    /// Only an empty value.
    Empty,
}

impl Harmless {
    pub fn allows(self, value: &str) -> bool {
        match self {
            Harmless::NotTrue => !value.eq_ignore_ascii_case("true"),
            Harmless::OneOf(values) => values.iter().any(|known| known.eq_ignore_ascii_case(value)),
            Harmless::Empty => value.is_empty(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    pub name: &'static str,
    pub place: Place,
    pub does: Does,
}

/// The key of exactly this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name).or_else(|| family(name))
}

/// The key of a name that the administrator's guide uses and ZooKeeper itself doesn't know in a file.
pub fn find_alias(alias: &str) -> Option<&'static Key> {
    ALIASES.iter().find(|(known, _)| *known == alias).and_then(|(_, name)| find(name))
}

/// The key that was probably meant: the same letters in another case.
pub fn find_near(name: &str) -> Option<&'static str> {
    let keys = KEYS.iter().map(|key| key.name);
    keys.chain(ALIASES.iter().map(|(alias, _)| *alias)).find(|known| known.eq_ignore_ascii_case(name))
}

/// Keys whose names end in something free.
fn family(name: &str) -> Option<&'static Key> {
    FAMILIES.iter().find(|key| name.starts_with(key.name) && name.len() > key.name.len())
}

use Place::{Bare, Both, File, Property};

const fn used(place: Place, name: &'static str) -> Key {
    Key { name, place, does: Does::Used }
}

const fn later(place: Place, name: &'static str, part: &'static str) -> Key {
    Key { name, place, does: Does::Later(part) }
}

const fn nothing(place: Place, name: &'static str, why: &'static str) -> Key {
    Key { name, place, does: Does::Nothing(why) }
}

const fn protects(place: Place, name: &'static str, harmless: Harmless, why: &'static str) -> Key {
    Key { name, place, does: Does::Protects { harmless, why } }
}

const LOCAL_SESSIONS: &str = "local sessions";
const OBSERVER_MASTER: &str = "followers that observers learn from";
const REACHABILITY: &str = "a check which addresses of a server answer";
const TLS: &str = "TLS";
const SASL: &str = "SASL";
const ADMIN: &str = "the admin port";
const METRICS: &str = "the metrics port";
const AUDIT: &str = "the audit log";
const OWN_FORMAT: &str =
    "snapshots have a format of their own; ZooKeeper's are read however they are compressed (ostler export)";
const JAVA: &str = "it tunes threads or buffers of the Java server";
const CLIENT: &str = "it is a setting of clients";
const ALWAYS: &str = "it is always so here";

/// Keys that begin with these names. `server.`, `group` and `weight` are read by `servers.rs`.
const FAMILIES: &[Key] = &[
    used(File, "server."),
    used(File, "group"),
    used(File, "weight"),
    used(Property, "authProvider."),
    later(Property, "ssl.", TLS),
    later(File, "metricsProvider.", METRICS),
    nothing(Property, "netty.", JAVA),
    nothing(Property, "commitProcessor.", JAVA),
    nothing(Property, "pathStats.", "there are no statistics by path"),
    nothing(Property, "messageTracker.", JAVA),
    nothing(File, "jvm.pause.", "there is no JVM"),
    nothing(Property, "sasl.client", CLIENT),
    nothing(Property, "jmx.", "there is no JMX; the words `mntr` and `srvr` have the numbers"),
    later(Property, "kerberos.", SASL),
    later(Property, "admin.", ADMIN),
    later(Property, "observerMaster.", OBSERVER_MASTER),
    later(Property, "audit.", AUDIT),
];

/// Keys without a field whose values ZooKeeper checks even so: a file that stops it stops this server as well.
pub const STRICT_TRUTHS: &[&str] = &[
    "sslQuorum",
    "sslQuorumReloadCertFiles",
    "portUnification",
    "syncEnabled",
    "localSessionsEnabled",
    "localSessionsUpgradingEnabled",
    "multiAddress.enabled",
    "multiAddress.reachabilityCheckEnabled",
    "jvm.pause.monitor",
    "reconfigEnabled",
    "quorumListenOnAllIPs",
    "quorum.auth.enableSasl",
    "quorum.auth.learnerRequireSasl",
    "quorum.auth.serverRequireSasl",
];

/// The same of numbers.
pub const STRICT_NUMBERS: &[&str] = &[
    "initLimit",
    "syncLimit",
    "connectToLearnerMasterLimit",
    "observerMasterPort",
    "multiAddress.reachabilityCheckTimeoutMs",
    "quorum.cnxn.threads.size",
];

/// And of those that are a `Long` there.
pub const STRICT_LONGS: &[&str] =
    &["jvm.pause.warn-threshold.ms", "jvm.pause.info-threshold.ms", "jvm.pause.sleep.time.ms"];

/// Keys that are read into `Config` and that nothing in this build acts on yet: a line says so. Whoever makes something
/// act on one takes it out here.
const NOT_ACTED_ON: &[&str] = &[
    "closeSessionTxn.enabled",
    "commitLogCount",
    "connection_throttle_",
    "db.autocreate",
    "flushDelay",
    "forceSnapshotSync",
    "forceSync",
    "globalOutstandingLimit",
    "largeRequestMaxBytes",
    "largeRequestThreshold",
    "leader.max",
    "leaderConnectDelayDuringRetryMs",
    "leaderServes",
    "maxBatchSize",
    "maxGetChildrenResponseCacheSize",
    "maxResponseCacheSize",
    "observer.election.DelayMs",
    "observer.reconnectDelayMs",
    "preAllocSize",
    "request_stale_",
    "request_throttle_",
    "request_throttler.",
    "snapshotSizeFactor",
    "tcpKeepAlive",
    "throttled_op_wait_time",
    "txnLogSizeLimitInKb",
];

/// Whether a key that is read does anything yet.
pub fn is_acted_on(name: &str) -> bool {
    !NOT_ACTED_ON.iter().any(|start| name.starts_with(start))
}

/// What the administrator's guide calls a key, and its name in ZooKeeper.
const ALIASES: &[(&str, &str)] = &[
    ("connectionMaxTokens", "connection_throttle_tokens"),
    ("connectionTokenFillTime", "connection_throttle_fill_time"),
    ("connectionTokenFillCount", "connection_throttle_fill_count"),
    ("connectionFreezeTime", "connection_throttle_freeze_time"),
    ("connectionDropIncrease", "connection_throttle_drop_increase"),
    ("connectionDropDecrease", "connection_throttle_drop_decrease"),
    ("connectionDecreaseRatio", "connection_throttle_decrease_ratio"),
    ("requestThrottleLimit", "request_throttle_max_requests"),
    ("requestThrottleStallTime", "request_throttle_stall_time"),
    ("requestThrottleDropStale", "request_throttle_drop_stale"),
    ("requestStaleLatencyCheck", "request_stale_latency_check"),
    ("requestStaleConnectionCheck", "request_stale_connection_check"),
    ("throttledOpWaitTime", "throttled_op_wait_time"),
    ("maxConcurrentSnapSyncs", "leader.maxConcurrentSnapSyncs"),
    ("maxConcurrentDiffSyncs", "leader.maxConcurrentDiffSyncs"),
    ("leader.maxConcurrentSnapshots", "leader.maxConcurrentSnapSyncs"),
];

const KEYS: &[Key] = &[
    // Where things are.
    used(File, "dataDir"),
    used(File, "dataLogDir"),
    used(Property, "datadir.autocreate"),
    used(Property, "db.autocreate"),
    used(File, "clientPort"),
    used(File, "clientPortAddress"),
    used(File, "secureClientPort"),
    used(File, "secureClientPortAddress"),
    used(File, "clientPortListenBacklog"),
    // Connections and sessions.
    used(File, "maxClientCnxns"),
    used(Property, "maxCnxns"),
    used(Property, "clientTcpKeepAlive"),
    used(Property, "nio.sessionlessCnxnTimeout"),
    used(File, "tickTime"),
    used(File, "minSessionTimeout"),
    used(File, "maxSessionTimeout"),
    // Requests.
    used(Bare, "jute.maxbuffer"),
    used(Property, "jute.maxbuffer.extrasize"),
    used(Property, "globalOutstandingLimit"),
    used(Property, "largeRequestMaxBytes"),
    used(Property, "largeRequestThreshold"),
    used(Property, "maxResponseCacheSize"),
    used(Property, "maxGetChildrenResponseCacheSize"),
    used(Property, "connection_throttle_tokens"),
    used(Property, "connection_throttle_fill_time"),
    used(Property, "connection_throttle_fill_count"),
    used(Property, "connection_throttle_freeze_time"),
    used(Property, "connection_throttle_drop_increase"),
    used(Property, "connection_throttle_drop_decrease"),
    used(Property, "connection_throttle_decrease_ratio"),
    used(Property, "connection_throttle_weight_enabled"),
    used(Property, "connection_throttle_global_session_weight"),
    used(Property, "connection_throttle_local_session_weight"),
    used(Property, "connection_throttle_renew_session_weight"),
    used(Property, "request_throttle_max_requests"),
    used(Property, "request_throttle_stall_time"),
    used(Property, "request_throttle_drop_stale"),
    used(Property, "request_stale_latency_check"),
    used(Property, "request_stale_connection_check"),
    used(Property, "throttled_op_wait_time"),
    used(Property, "request_throttler.shutdownTimeout"),
    // The tree.
    used(Property, "extendedTypesEnabled"),
    used(Property, "emulate353TTLNodes"),
    used(Property, "enforceQuota"),
    used(Property, "digest.enabled"),
    used(Property, "closeSessionTxn.enabled"),
    used(Bare, "znode.container.checkIntervalMs"),
    used(Bare, "znode.container.maxPerMinute"),
    used(Bare, "znode.container.maxNeverUsedIntervalMs"),
    // Who may do what.
    used(Property, "skipACL"),
    nothing(Property, "enableEagerACLCheck", "it checks before a request is sent on to another server"),
    used(Property, "DigestAuthenticationProvider.enabled"),
    used(Property, "DigestAuthenticationProvider.superDigest"),
    used(Property, "DigestAuthenticationProvider.digestAlg"),
    later(Property, "X509AuthenticationProvider.superUser", TLS),
    later(Property, "superUser", SASL),
    later(Property, "SASLAuthenticationProvider.superPassword", SASL),
    later(Property, "IPAuthenticationProvider.usexforwardedfor", ADMIN),
    protects(
        Property,
        "sessionRequireClientSASLAuth",
        Harmless::NotTrue,
        "SASL is not in this build, and clients without it would be let in",
    ),
    used(Property, "enforce.auth.enabled"),
    used(Property, "enforce.auth.schemes"),
    nothing(Property, "allowSaslFailedClients", "SASL is not in this build"),
    protects(
        Property,
        "ensembleAuthName",
        Harmless::Empty,
        "the scheme `ensemble` is not in this build, and clients of another ensemble would not be refused",
    ),
    protects(Property, "letAnySaslUserDoX", Harmless::Empty, "it gives one identity to every SASL user"),
    later(Bare, "java.security.auth.login.config", SASL),
    later(Property, "sasl.serverconfig", SASL),
    later(Property, "security.auth_to_local", SASL),
    nothing(Property, "kinit", "there are no Kerberos tickets to renew"),
    later(Property, "server.realm", SASL),
    protects(
        File,
        "quorum.auth.enableSasl",
        Harmless::NotTrue,
        "SASL between servers is not in this build, and its absence would go unnoticed",
    ),
    protects(
        File,
        "quorum.auth.learnerRequireSasl",
        Harmless::NotTrue,
        "SASL between servers is not in this build, and its absence would go unnoticed",
    ),
    protects(
        File,
        "quorum.auth.serverRequireSasl",
        Harmless::NotTrue,
        "SASL between servers is not in this build, and its absence would go unnoticed",
    ),
    later(File, "quorum.auth.learner.saslLoginContext", SASL),
    later(File, "quorum.auth.server.saslLoginContext", SASL),
    later(File, "quorum.auth.kerberos.servicePrincipal", SASL),
    // TLS. Whatever begins with `ssl.` is in FAMILIES.
    protects(Property, "ssl.authProvider", Harmless::OneOf(&["x509", ""]), "only x509 will be known for TLS clients"),
    protects(File, "sslQuorum", Harmless::NotTrue, "TLS between servers is not in this build"),
    later(File, "portUnification", TLS),
    later(Property, "client.portUnification", TLS),
    later(File, "sslQuorumReloadCertFiles", TLS),
    later(Property, "client.certReload", TLS),
    nothing(Property, "fips-mode", "there is no Java security provider"),
    nothing(Property, "serverCnxnFactory", "there is one kind of listener"),
    nothing(Bare, "jdk.tls.rejectClientInitiatedRenegotiation", ALWAYS),
    // Log and snapshots.
    used(Property, "snapCount"),
    used(Property, "snapSizeLimitInKb"),
    used(Property, "txnLogSizeLimitInKb"),
    used(Property, "preAllocSize"),
    used(Property, "forceSync"),
    used(Both, "fsync.warningthresholdms"),
    used(Property, "flushDelay"),
    nothing(Property, "maxWriteQueuePollTime", JAVA),
    used(Property, "maxBatchSize"),
    used(File, "autopurge.snapRetainCount"),
    used(File, "autopurge.purgeInterval"),
    nothing(Property, "serializeLastProcessedZxid.enabled", ALWAYS),
    nothing(Property, "snapshot.compression.method", OWN_FORMAT),
    nothing(Property, "snapshot.trust.empty", OWN_FORMAT),
    // Questions from outside.
    used(Property, "4lw.commands.whitelist"),
    used(Bare, "readonlymode.enabled"),
    // Ensembles. Quorum keys that begin with a family name are in FAMILIES.
    used(File, "standaloneEnabled"),
    used(File, "dynamicConfigFile"),
    used(File, "electionAlg"),
    used(File, "peerType"),
    used(File, "reconfigEnabled"),
    used(File, "initLimit"),
    used(File, "syncLimit"),
    used(File, "connectToLearnerMasterLimit"),
    used(File, "quorumListenOnAllIPs"),
    used(Property, "multiAddress.enabled"),
    used(Property, "cnxTimeout"),
    used(Property, "quorumCnxnTimeoutMs"),
    used(Property, "electionPortBindRetry"),
    used(Property, "tcpKeepAlive"),
    used(Property, "fastleader.minNotificationInterval"),
    used(Property, "fastleader.maxNotificationInterval"),
    used(Property, "observer.election.DelayMs"),
    used(Property, "observer.reconnectDelayMs"),
    used(Property, "leader.maxTimeToWaitForEpoch"),
    used(Property, "leaderConnectDelayDuringRetryMs"),
    used(Property, "leaderServes"),
    used(Property, "leader.maxConcurrentSnapSyncs"),
    used(Property, "leader.maxConcurrentDiffSyncs"),
    used(Property, "forceSnapshotSync"),
    used(Property, "commitLogCount"),
    used(Property, "snapshotSizeFactor"),
    later(File, "observerMasterPort", OBSERVER_MASTER),
    later(File, "localSessionsEnabled", LOCAL_SESSIONS),
    later(File, "localSessionsUpgradingEnabled", LOCAL_SESSIONS),
    later(File, "syncEnabled", "observers without a log"),
    later(Property, "observer.syncEnabled", "observers without a log"),
    later(File, "oraclePath", "an oracle for ensembles of two"),
    later(Property, "multiAddress.reachabilityCheckEnabled", REACHABILITY),
    later(Property, "multiAddress.reachabilityCheckTimeoutMs", REACHABILITY),
    nothing(File, "quorum.cnxn.threads.size", JAVA),
    nothing(Property, "leader.closeSocketAsync", ALWAYS),
    nothing(Property, "learner.closeSocketAsync", ALWAYS),
    nothing(Property, "learner.asyncSending", ALWAYS),
    nothing(Property, "leader.ackLoggingFrequency", JAVA),
    nothing(Bare, "leader.nodelay", ALWAYS),
    nothing(Bare, "follower.nodelay", ALWAYS),
    nothing(Property, "follower.skipLearnerRequestToNextProcessor", JAVA),
    nothing(Property, "forward_learner_requests_to_commit_processor_disabled", JAVA),
    // Metrics: the class has to be one that ZooKeeper could load.
    used(File, "metricsProvider.className"),
    // The Java server's own.
    nothing(Property, "intBufferStartingSizeBytes", JAVA),
    nothing(Property, "nio.numSelectorThreads", JAVA),
    nothing(Property, "nio.numWorkerThreads", JAVA),
    nothing(Property, "nio.directBufferBytes", JAVA),
    nothing(Property, "nio.shutdownTimeout", JAVA),
    nothing(Property, "watchManagerName", JAVA),
    nothing(Property, "watcherCleanThreshold", JAVA),
    nothing(Property, "watcherCleanIntervalInSeconds", JAVA),
    nothing(Property, "watcherCleanThreadsNum", JAVA),
    nothing(Property, "maxInProcessingDeadWatchers", JAVA),
    nothing(Property, "bitHashCacheSize", JAVA),
    nothing(File, "jvm.pause.monitor", "there is no JVM"),
    nothing(Property, "disableAutoWatchReset", CLIENT),
    nothing(Property, "clientCnxnSocket", CLIENT),
    nothing(Property, "client.secure", CLIENT),
    nothing(Property, "request.timeout", CLIENT),
    nothing(Property, "server.principal", CLIENT),
    // Java's logging.
    nothing(Property, "log.dir", "log lines go to standard error"),
    nothing(Property, "log.file", "log lines go to standard error"),
    nothing(Property, "root.logger", "the level of log lines is set by OSTLER_LOG"),
    nothing(Property, "console.threshold", "the level of log lines is set by OSTLER_LOG"),
    nothing(Property, "log.threshold", "the level of log lines is set by OSTLER_LOG"),
    // Ours.
    used(Both, "ostler.connectionWatchBytes"),
    used(Both, "ostler.coreOutputBytes"),
    used(Both, "ostler.cores"),
    used(Both, "ostler.epochTransactions"),
    used(Both, "ostler.pinCores"),
    used(Both, "ostler.strictProperties"),
];

/// All names, families with a star, in the order of the table. For the test that compares with the documentation.
pub fn names() -> impl Iterator<Item = String> {
    KEYS.iter().map(|key| key.name.to_owned()).chain(FAMILIES.iter().map(|key| format!("{}*", key.name)))
}
