//! From what was said about each key to a checked `Config`.
//!
//! Two kinds of keys, as in ZooKeeper, since files in use rely on both: those that it parses by name are strict, and a
//! value that makes no sense stops the start; those that pass through into Java properties are lenient, and a value
//! that makes no sense leaves the default. ZooKeeper does the second in silence; here a line says so.
//!
//! Promises: the checks of ZooKeeper with its words, in its order. Runs on: the starting thread.

use super::gather::{Gathered, Given, Origin};
use super::keys::{self, Does};
use super::members;
use super::values::{Config, ConnectionThrottle, Purge, PurgeWhen, RequestThrottle, SNAP_COUNT, WordList};
use super::{Level, Notice, Sources};
use crate::fatal::Fatal;
use crate::hosts;
use crate::ids::OwnerRules;
use crate::limits;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The reader of one set of keys; collects what the log should say.
pub(super) struct Reader<'a> {
    pub gathered: &'a Gathered,
    pub sources: &'a Sources,
    pub notices: &'a mut Vec<Notice>,
}

/// The default number of I/O cores can't grow beyond what the tree's lock is split into.
const CORES_MAX: usize = 256;
/// The least of `jute.maxbuffer.extrasize`, as upstream: the head of a record, and what a follower sends with a request.
const JUTE_EXTRA_MIN: i32 = 1024;

/// Shorter epochs would hardly get beyond their own sessions.
const EPOCH_TRANSACTIONS_MIN: u32 = 100;

/// What `digestAlg` may be, in capitals: what `auth` can compute.
const DIGEST_ALGORITHMS: &[&str] = &[
    "MD5", "SHA1", "SHA-1", "SHA", "SHA-224", "SHA-256", "SHA-384", "SHA-512", "SHA3-224", "SHA3-256", "SHA3-384",
    "SHA3-512",
];

impl Reader<'_> {
    pub fn config(mut self) -> Result<Config, Fatal> {
        let mut config = Config::defaults(self.sources.processors);
        self.classify()?;
        config.file = self.sources.file.clone();
        if config.file.is_some() {
            self.directories(&mut config)?;
        }
        config.datadir_autocreate = self.truth("datadir.autocreate", true);
        self.listener(&mut config)?;
        self.times(&mut config)?;
        self.requests(&mut config);
        self.throttles(&mut config);
        self.tree(&mut config);
        self.protection(&mut config)?;
        self.storage(&mut config)?;
        self.own(&mut config)?;
        if let Some(words) = self.text("4lw.commands.whitelist") {
            config.four_letter_words = WordList::parse(words);
        }
        config.read_only_mode = self.truth("readonlymode.enabled", false);
        members::read(&mut self, &mut config)?;
        self.port(&mut config)?;
        Ok(config)
    }

    /// One line for each key that has no effect, and the end for each whose loss would weaken protection.
    fn classify(&mut self) -> Result<(), Fatal> {
        for (name, given) in self.gathered.iter() {
            let Some(key) = keys::find(name) else { continue };
            match key.does {
                Does::Used if !keys::is_acted_on(name) => {
                    let text = format!("{} is read, but this build does not act on it yet", place(name, given));
                    self.notices.push(Notice::new(Level::Warn, text));
                }
                Does::Used => {}
                Does::Later(part) => {
                    let text = format!("{} has no effect: this build does not have {part} yet", place(name, given));
                    self.notices.push(Notice::new(Level::Info, text));
                }
                Does::Nothing(why) => {
                    let text = format!("{} has no effect: {why}", place(name, given));
                    self.notices.push(Notice::new(Level::Info, text));
                }
                Does::Protects { harmless, why } if !harmless.allows(&given.value) => {
                    return Err(self.fatal(given, format!("{name}={}: {why}; remove the key to start", given.value)));
                }
                Does::Protects { .. } => {}
            }
            if name.starts_with("authProvider.") {
                self.auth_provider(name, given)?;
            }
        }
        for name in keys::STRICT_TRUTHS {
            self.checked_truth(name)?;
        }
        for name in keys::STRICT_NUMBERS {
            self.strict::<i32>(name)?;
        }
        for name in keys::STRICT_LONGS {
            self.strict::<i64>(name)?;
        }
        if let Some(given) = self.gathered.get("metricsProvider.className") {
            let known = ["DefaultMetricsProvider", "NullMetricsProvider", "PrometheusMetricsProvider"];
            let class = given.value.rsplit('.').next().unwrap_or_default();
            if !known.contains(&class) {
                return Err(self.fatal(given, format!("metrics provider class was not found: {}", given.value)));
            }
            if class == "PrometheusMetricsProvider" {
                let text =
                    format!("{} has no effect: this build has no metrics port yet", place("metricsProvider", given));
                self.notices.push(Notice::new(Level::Warn, text));
            }
        }
        Ok(())
    }

    /// A class that is dropped in silence would let in whom it was to keep out.
    fn auth_provider(&mut self, name: &str, given: &Given) -> Result<(), Fatal> {
        let class = given.value.strip_prefix("org.apache.zookeeper.server.auth.").unwrap_or(&given.value);
        match class {
            "DigestAuthenticationProvider" | "IPAuthenticationProvider" => Ok(()),
            "SASLAuthenticationProvider" | "X509AuthenticationProvider" | "EnsembleAuthenticationProvider" => {
                let text = format!("{} is not in this build; who needs it is refused", place(name, given));
                self.notices.push(Notice::new(Level::Warn, text));
                Ok(())
            }
            _ => {
                let problem = format!("{name}={}: this authentication provider is not known", given.value);
                Err(self.fatal(given, problem))
            }
        }
    }

    fn directories(&mut self, config: &mut Config) -> Result<(), Fatal> {
        let Some(dir) = self.text("dataDir") else { return Err(self.fatal_file("dataDir is not set".into())) };
        config.data_dir = PathBuf::from(dir);
        config.data_log_dir = self.text("dataLogDir").map_or_else(|| config.data_dir.clone(), PathBuf::from);
        for (name, dir) in [("dataDir", config.data_dir.clone()), ("dataLogDir", config.data_log_dir.clone())] {
            if self.gathered.get(name).is_some() {
                if dir.as_os_str().is_empty() {
                    return Err(self.fatal_key(name, format!("{name} is empty; name a directory")));
                }
                self.warn_if_relative(name, &dir);
            }
        }
        Ok(())
    }

    pub fn warn_if_relative(&mut self, name: &str, path: &Path) {
        if path.is_relative() && !path.starts_with(".") {
            let text = format!(
                "{name} {} is relative to the working directory; prepend ./ to say that it is meant",
                path.display()
            );
            self.notices.push(Notice::new(Level::Warn, text));
        }
    }

    fn listener(&mut self, config: &mut Config) -> Result<(), Fatal> {
        config.client_port_listen_backlog =
            self.strict::<i32>("clientPortListenBacklog")?.and_then(|backlog| u32::try_from(backlog).ok());
        // ZooKeeper's form without a file has no limit unless it is given one.
        let cnxns = if self.sources.positional.is_some() { 0 } else { 60 };
        config.max_client_cnxns = self.strict::<i32>("maxClientCnxns")?.unwrap_or(cnxns).max(0) as u32;
        config.max_cnxns = self.number::<i32>("maxCnxns", 0).max(0) as u32;
        config.client_tcp_keep_alive = self.truth("clientTcpKeepAlive", false);
        config.sessionless_cnxn_timeout_ms = self.number::<i32>("nio.sessionlessCnxnTimeout", 10_000).max(1) as u64;

        config.secure_client_port = self.strict_port("secureClientPort")?.filter(|port| *port != 0);
        match (self.gathered.get("secureClientPortAddress"), config.secure_client_port) {
            (Some(given), None) => {
                Err(self.fatal(given, "secureClientPortAddress is set but secureClientPort is not set".into()))
            }
            (_, Some(port)) => {
                let text = format!("secureClientPort {port} is not opened: this build has no TLS yet");
                self.notices.push(Notice::new(Level::Error, text));
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// After the server lines, which may hold the port.
    fn port(&mut self, config: &mut Config) -> Result<(), Fatal> {
        let address = self.gathered.get("clientPortAddress").cloned();
        if let (Some(address), None) = (&address, self.gathered.get("clientPort")) {
            return Err(self.fatal(address, "clientPortAddress is set but clientPort is not set".into()));
        }
        match self.strict_port("clientPort")? {
            Some(port) => config.client_port = port,
            // Set by a server line, or by the form without a file.
            None if self.sources.file.is_none() || config.client_port_from_server_line => {}
            None if config.secure_client_port.is_some() => {
                let problem = "clientPort is not set and this build has no TLS yet: nothing would listen";
                return Err(self.fatal_file(problem.into()));
            }
            None => return Err(self.fatal_file("clientPort is not set: nothing would listen".into())),
        }
        if let Some(address) = address.filter(|_| !config.client_port_from_server_line) {
            config.client_port_address = self.resolve(&address)?;
        }
        Ok(())
    }

    /// A bind address belongs to this host, so unlike a peer's it may be resolved once. `None`: all of them, whichever
    /// family's way of saying it.
    pub fn resolve(&self, given: &Given) -> Result<Option<IpAddr>, Fatal> {
        let inside = given.value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = inside.unwrap_or(&given.value);
        let found = match host.parse::<IpAddr>() {
            Ok(ip) => Ok(Some(ip)),
            Err(_) if host.contains([':', '[', ']', ' ']) => Ok(None),
            Err(_) => hosts::look_up(host, 0).map(|found| found.first().map(SocketAddr::ip)),
        };
        match found {
            Ok(Some(ip)) => Ok((!ip.is_unspecified()).then_some(ip)),
            Ok(None) => {
                Err(self.fatal(given, format!("{}: not an address, and no address for this name", given.value)))
            }
            Err(error) => Err(self.fatal(given, format!("{}: {error}", given.value))),
        }
    }

    fn times(&mut self, config: &mut Config) -> Result<(), Fatal> {
        // ZooKeeper's default; a start without any argument, which it hasn't, has what every sample file says.
        let bare = config.file.is_none() && self.sources.positional.is_none();
        let default = if bare { 2_000 } else { 3_000 };
        let tick = self.strict::<i32>("tickTime")?.unwrap_or(default);
        if tick == 0 {
            return Err(self.fatal_key("tickTime", "tickTime is not set".into()));
        }
        if tick < 0 {
            return Err(self.fatal_key("tickTime", format!("tickTime {tick} is below 1")));
        }
        config.tick_time_ms = tick as u32;
        let bound = |name: &str, ticks: i32| match self.strict::<i32>(name)? {
            None | Some(-1) => Ok(tick.saturating_mul(ticks) as u32),
            Some(ms) if ms < 0 => Err(self.fatal_key(name, format!("{name} {ms} is below 0"))),
            Some(ms) => Ok(ms as u32),
        };
        config.min_session_timeout_ms = bound("minSessionTimeout", 2)?;
        config.max_session_timeout_ms = bound("maxSessionTimeout", 20)?;
        if config.min_session_timeout_ms > config.max_session_timeout_ms {
            let problem = "minSessionTimeout must not be larger than maxSessionTimeout";
            return Err(self.fatal_key("minSessionTimeout", problem.into()));
        }
        Ok(())
    }

    fn requests(&mut self, config: &mut Config) {
        let defaults = config.clone();
        let buffer = self.number::<i32>("jute.maxbuffer", defaults.jute_max_buffer as i32);
        config.jute_max_buffer = buffer.max(0) as usize;
        let extra = self.number::<i32>("jute.maxbuffer.extrasize", buffer);
        config.jute_max_buffer_extra = extra.max(JUTE_EXTRA_MIN) as usize;
        config.global_outstanding_limit = self.number::<i32>("globalOutstandingLimit", 1_000).max(1) as u32;
        config.large_request_max_bytes = self.number::<i32>("largeRequestMaxBytes", 100 << 20).max(0) as u32;
        let threshold = self.number::<i32>("largeRequestThreshold", -1);
        config.large_request_threshold = u32::try_from(threshold).ok().filter(|bytes| *bytes > 0);
        config.max_response_cache_size = self.number::<i32>("maxResponseCacheSize", 400).max(0) as u32;
        config.max_get_children_response_cache_size =
            self.number::<i32>("maxGetChildrenResponseCacheSize", 400).max(0) as u32;
        config.shutdown_timeout_ms = self.number::<i64>("request_throttler.shutdownTimeout", 10_000).max(0) as u64;
    }

    fn throttles(&mut self, config: &mut Config) {
        let tokens = self.number::<i32>("connection_throttle_tokens", 0);
        let weighted = self.truth("connection_throttle_weight_enabled", false);
        let mut positive = |name: &str, default: i32| self.number::<i32>(name, default).max(1) as u32;
        let fill_time_ms = positive("connection_throttle_fill_time", 1);
        let fill_count = positive("connection_throttle_fill_count", 1);
        let weights = [
            positive("connection_throttle_global_session_weight", 3),
            positive("connection_throttle_local_session_weight", 1),
            positive("connection_throttle_renew_session_weight", 2),
        ]
        .map(|weight| if weighted { weight } else { 1 });
        let freeze_time_ms = u32::try_from(self.number::<i32>("connection_throttle_freeze_time", -1)).ok();
        let drop_increase = self.fraction("connection_throttle_drop_increase", 0.02);
        let drop_decrease = self.fraction("connection_throttle_drop_decrease", 0.002);
        let decrease_ratio = self.fraction("connection_throttle_decrease_ratio", 0.0);
        config.connection_throttle = (tokens > 0).then_some(ConnectionThrottle {
            tokens: tokens.max(0) as u32,
            fill_time_ms,
            fill_count,
            freeze_time_ms,
            drop_increase,
            drop_decrease,
            decrease_ratio,
            global_session_weight: weights[0],
            local_session_weight: weights[1],
            renew_session_weight: weights[2],
        });

        let max_requests = self.number::<i32>("request_throttle_max_requests", 0).max(0) as u32;
        let waits = self.number::<i32>("throttled_op_wait_time", 0).max(0) as u32;
        let throttle = RequestThrottle {
            max_requests,
            stall_time_ms: self.number::<i32>("request_throttle_stall_time", 100).max(1) as u32,
            drop_stale: self.truth("request_throttle_drop_stale", true),
            stale_latency_check: self.truth("request_stale_latency_check", false),
            stale_connection_check: self.truth("request_stale_connection_check", true),
            throttled_op_wait_ms: (waits > 0).then_some(waits),
        };
        config.request_throttle = (max_requests > 0).then_some(throttle);
    }

    fn tree(&mut self, config: &mut Config) {
        config.owner_rules = OwnerRules {
            extended_types: self.truth("extendedTypesEnabled", false),
            emulate_353_ttl: self.truth("emulate353TTLNodes", false),
        };
        config.enforce_quota = self.truth("enforceQuota", false);
        config.reconfig_enabled = self.truth("reconfigEnabled", false);
        config.digest_enabled = self.truth("digest.enabled", true);
        config.close_session_txn_enabled = self.truth("closeSessionTxn.enabled", true);
        let interval = self.number::<i32>("znode.container.checkIntervalMs", 60_000);
        config.containers.check_interval_ms = interval.max(0) as u64;
        config.containers.max_per_minute = self.number::<i32>("znode.container.maxPerMinute", 10_000).max(1) as u32;
        let never_used = self.number::<i64>("znode.container.maxNeverUsedIntervalMs", 0);
        config.containers.max_never_used_ms = never_used.max(0) as u64;
    }

    fn protection(&mut self, config: &mut Config) -> Result<(), Fatal> {
        config.skip_acl = self.yes_or_no("skipACL", "no") == "yes";
        if config.skip_acl {
            self.notices.push(Notice::new(Level::Warn, "skipACL=yes: everyone may do everything".into()));
        }
        config.digest_auth_enabled = self.truth("DigestAuthenticationProvider.enabled", true);
        let digest = self.text("DigestAuthenticationProvider.superDigest").filter(|digest| !digest.is_empty());
        config.super_digest = digest.map(str::to_owned);
        if let Some(given) = self.gathered.get("DigestAuthenticationProvider.digestAlg") {
            config.digest_alg = given.value.to_ascii_uppercase();
            if !DIGEST_ALGORITHMS.contains(&config.digest_alg.as_str()) {
                let problem = format!(
                    "DigestAuthenticationProvider.digestAlg={}: not in this build; the ids in existing ACLs would match nobody",
                    given.value
                );
                return Err(self.fatal(given, problem));
            }
        }
        self.required_schemes(config)
    }

    fn required_schemes(&mut self, config: &mut Config) -> Result<(), Fatal> {
        if !self.truth("enforce.auth.enabled", false) {
            return Ok(());
        }
        let schemes = self.text("enforce.auth.schemes").unwrap_or_default();
        let schemes: Vec<String> =
            schemes.split(',').map(|scheme| scheme.trim().to_owned()).filter(|scheme| !scheme.is_empty()).collect();
        if schemes.is_empty() {
            let problem = "enforce.auth.enabled is true but enforce.auth.schemes must be configured";
            return Err(self.fatal_key("enforce.auth.enabled", problem.into()));
        }
        for scheme in &schemes {
            let known = scheme == "ip" || scheme == "digest" && config.digest_auth_enabled;
            if !known {
                let problem = format!("enforce.auth.schemes: this build has no authentication scheme {scheme}");
                return Err(self.fatal_key("enforce.auth.schemes", problem));
            }
        }
        config.required_auth_schemes = schemes;
        Ok(())
    }

    fn storage(&mut self, config: &mut Config) -> Result<(), Fatal> {
        config.snap_count = self.number::<i32>("snapCount", SNAP_COUNT as i32).max(2) as u32;
        let kib = |kib: i64| u64::try_from(kib).ok().filter(|kib| *kib > 0).map(|kib| kib.saturating_mul(1024));
        config.snap_size_limit_bytes = kib(self.number::<i64>("snapSizeLimitInKb", 4_194_304));
        config.txn_log_size_limit_bytes = kib(self.number::<i64>("txnLogSizeLimitInKb", -1));
        config.pre_alloc_bytes = match self.gathered.get("preAllocSize") {
            Some(_) => kib(self.number::<i64>("preAllocSize", 65_536)),
            None => None,
        };
        config.force_sync = self.yes_or_no("forceSync", "yes") != "no";
        if !config.force_sync && keys::is_acted_on("forceSync") {
            let text = "forceSync=no: writes are acknowledged before they are on disk; a power cut loses them";
            self.notices.push(Notice::new(Level::Warn, text.into()));
        }
        config.fsync_warning_threshold_ms = self.number::<i64>("fsync.warningthresholdms", 1_000).max(0) as u64;
        config.flush_delay_ms = self.number::<i64>("flushDelay", 0).max(0) as u64;
        config.max_batch_size = self.number::<i32>("maxBatchSize", 1_000).max(1) as u32;

        let retain = self.strict::<i32>("autopurge.snapRetainCount")?.unwrap_or(3);
        if retain < 3 {
            let text = format!("Invalid autopurge.snapRetainCount: {retain}. Defaulting to 3");
            self.notices.push(Notice::new(Level::Warn, text));
        }
        let when = match self.strict::<i32>("autopurge.purgeInterval")? {
            None => PurgeWhen::AfterSnapshot,
            Some(hours) if hours > 0 => PurgeWhen::EveryHours(hours as u32),
            Some(_) => PurgeWhen::Never,
        };
        config.purge = Purge { snap_retain_count: retain.max(3) as u32, when };
        Ok(())
    }

    fn own(&mut self, config: &mut Config) -> Result<(), Fatal> {
        if let Some(cores) = self.strict::<u32>("ostler.cores")? {
            if cores == 0 || cores as usize > CORES_MAX {
                return Err(
                    self.fatal_key("ostler.cores", format!("ostler.cores {cores} is not within 1 and {CORES_MAX}"))
                );
            }
            config.cores = cores as usize;
        }
        config.cores = config.cores.min(CORES_MAX);
        if let Some(pin) = self.strict_truth("ostler.pinCores")? {
            config.pin_cores = pin;
        }
        for (key, least, bytes) in [
            ("ostler.connectionWatchBytes", limits::CONNECTION_WATCH_BYTES_MIN, &mut config.connection_watch_bytes),
            ("ostler.coreOutputBytes", limits::CORE_OUTPUT_BYTES_MIN, &mut config.core_output_bytes),
        ] {
            let Some(asked) = self.strict::<usize>(key)? else { continue };
            if asked < least {
                return Err(self.fatal_key(key, format!("{key} {asked} is below {least}")));
            }
            *bytes = asked;
        }
        if let Some(transactions) = self.strict::<u32>("ostler.epochTransactions")? {
            let most = limits::EPOCH_TRANSACTIONS;
            if !(EPOCH_TRANSACTIONS_MIN..=most).contains(&transactions) {
                let problem = format!(
                    "ostler.epochTransactions {transactions} is not within {EPOCH_TRANSACTIONS_MIN} and {most}"
                );
                return Err(self.fatal_key("ostler.epochTransactions", problem));
            }
            config.epoch_transactions = transactions;
        }
        self.strict_truth("ostler.strictProperties")?;
        Ok(())
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.gathered.get(name).map(|given| given.value.as_str())
    }

    /// A number that ZooKeeper parses by name: decimal, no suffix, or the end.
    pub fn strict<T: FromStr>(&self, name: &str) -> Result<Option<T>, Fatal> {
        let Some(given) = self.gathered.get(name) else { return Ok(None) };
        match given.value.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => {
                let problem = format!("{name}: For input string: \"{}\": not a number in range", given.value);
                Err(self.fatal(given, problem))
            }
        }
    }

    pub fn strict_port(&self, name: &str) -> Result<Option<u16>, Fatal> {
        match self.strict::<i32>(name)? {
            None => Ok(None),
            Some(port) => match u16::try_from(port) {
                Ok(port) => Ok(Some(port)),
                Err(_) => Err(self.fatal_key(name, format!("{name}: port out of range:{port}"))),
            },
        }
    }

    /// A truth value that ZooKeeper parses by name.
    pub fn strict_truth(&self, name: &str) -> Result<Option<bool>, Fatal> {
        let Some(given) = self.gathered.get(name) else { return Ok(None) };
        match given.value.to_ascii_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => {
                let problem = format!("Invalid option {} for {name}. Choose 'true' or 'false.'", given.value);
                Err(self.fatal(given, problem))
            }
        }
    }

    /// The check of a truth value that ZooKeeper parses by name in the file and leniently where it is a property.
    fn checked_truth(&mut self, name: &str) -> Result<(), Fatal> {
        match self.gathered.get(name).map(|given| given.origin) {
            Some(Origin::Define(_)) => drop(self.truth(name, false)),
            _ => drop(self.strict_truth(name)?),
        }
        Ok(())
    }

    /// A truth value of `keys::STRICT_TRUTHS`, whose form has been checked.
    pub fn is_true(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A number that passes through a Java property: what doesn't parse is the default, with a warning.
    pub fn number<T: TryFrom<i64> + Copy + std::fmt::Display>(&mut self, name: &str, default: T) -> T {
        let Some(given) = self.gathered.get(name) else { return default };
        match decode(&given.value).and_then(|number| T::try_from(number).ok()) {
            Some(number) => number,
            None => {
                let text = format!("{} is not a number; {default} counts", place(name, given));
                self.notices.push(Notice::new(Level::Warn, text));
                default
            }
        }
    }

    fn fraction(&mut self, name: &str, default: f64) -> f64 {
        let Some(given) = self.gathered.get(name) else { return default };
        match given.value.parse::<f64>() {
            Ok(number) if (0.0..=1.0).contains(&number) => number,
            _ => {
                let text = format!("{} is not a number within 0 and 1; {default} counts", place(name, given));
                self.notices.push(Notice::new(Level::Warn, text));
                default
            }
        }
    }

    /// A truth value that passes through: `true` in any case is true and all else is false.
    pub fn truth(&mut self, name: &str, default: bool) -> bool {
        let Some(given) = self.gathered.get(name) else { return default };
        let is_true = given.value.eq_ignore_ascii_case("true");
        if !is_true && !given.value.eq_ignore_ascii_case("false") {
            let text = format!("{} is neither true nor false; it counts as false", place(name, given));
            self.notices.push(Notice::new(Level::Warn, text));
        }
        is_true
    }

    pub fn yes_or_no(&mut self, name: &str, default: &'static str) -> &'static str {
        let Some(given) = self.gathered.get(name) else { return default };
        match given.value.as_str() {
            "yes" => "yes",
            "no" => "no",
            _ => {
                let text = format!("{} is neither yes nor no; {default} counts", place(name, given));
                self.notices.push(Notice::new(Level::Warn, text));
                default
            }
        }
    }

    /// The end, at the place where `given` stands.
    pub fn fatal(&self, given: &Given, problem: String) -> Fatal {
        match (given.origin, &self.sources.file) {
            (Origin::Line(line), Some(file)) => Fatal::Config { file: file.clone(), line, problem },
            (Origin::Define(origin), _) => Fatal::Usage { problem: format!("{origin}: {problem}") },
            (Origin::Line(_), None) => Fatal::Usage { problem },
        }
    }

    pub fn fatal_key(&self, name: &str, problem: String) -> Fatal {
        match self.gathered.get(name) {
            Some(given) => self.fatal(given, problem),
            None => self.fatal_file(problem),
        }
    }

    pub fn fatal_file(&self, problem: String) -> Fatal {
        match &self.sources.file {
            Some(file) => Fatal::Config { file: file.clone(), line: 0, problem },
            None => Fatal::Usage { problem },
        }
    }
}

/// A key with the place it was given at, as notices begin.
pub(super) fn place(name: &str, given: &Given) -> String {
    // Values of keys that hold secrets must not reach the log.
    let secret = name.to_ascii_lowercase();
    let secret = secret.contains("password") || secret.contains("superdigest");
    let value = if secret { "***" } else { given.value.as_str() };
    match given.origin {
        Origin::Line(line) => format!("line {line}: {name}={value}"),
        Origin::Define(origin) => format!("{origin}: {name}={value}"),
    }
}

/// `Long.decode` of Java, which `Long.getLong` uses: a sign, then decimal, `0x`, `#` or a leading 0 for octal.
fn decode(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let (digits, radix) = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        (hex, 16)
    } else if let Some(hex) = digits.strip_prefix('#') {
        (hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (&digits[1..], 8)
    } else {
        (digits, 10)
    };
    // `from_str_radix` would take a second sign.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_java_properties_are_decoded_as_java_does() {
        let good =
            [("10", 10), ("-1", -1), ("+7", 7), ("0x10", 16), ("-0X10", -16), ("#ff", 255), ("010", 8), ("0", 0)];
        for (text, number) in good {
            assert_eq!(decode(text), Some(number), "{text}");
        }
        for text in ["", "-", "1h", "--1", "0x", "0x-1", "09", " 1", "1.0", "9223372036854775808"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        assert_eq!(decode("-9223372036854775808"), Some(i64::MIN));
    }
}
