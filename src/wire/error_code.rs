//! The numbers with which a server answers what it can't or won't do (upstream: `KeeperException.Code`).
//!
//! They are answers, not Rust errors of ours: made in `prepare` and by the readers of the tree, written by `wire`. Never
//! invent one: clients map an unknown code to a crash of their own.

/// An answer's error number; `OK` is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub i32);

macro_rules! codes {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl ErrorCode {
            $(pub const $name: ErrorCode = ErrorCode($number);)*

            /// ZooKeeper's name of the code, as its clients print it; `None` for a number that no server sends.
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $($number => Some($text),)* _ => None }
            }
        }
    };
}

codes! {
    OK = 0, "ok";
    RUNTIME_INCONSISTENCY = -2, "RuntimeInconsistency";
    CONNECTION_LOSS = -4, "ConnectionLoss";
    MARSHALLING_ERROR = -5, "MarshallingError";
    UNIMPLEMENTED = -6, "Unimplemented";
    OPERATION_TIMEOUT = -7, "OperationTimeout";
    BAD_ARGUMENTS = -8, "BadArguments";
    UNKNOWN_SESSION = -12, "UnknownSession";
    NEW_CONFIG_NO_QUORUM = -13, "NewConfigNoQuorum";
    RECONFIG_IN_PROGRESS = -14, "ReconfigInProgress";
    NO_NODE = -101, "NoNode";
    NO_AUTH = -102, "NoAuth";
    BAD_VERSION = -103, "BadVersion";
    NO_CHILDREN_FOR_EPHEMERALS = -108, "NoChildrenForEphemerals";
    NODE_EXISTS = -110, "NodeExists";
    NOT_EMPTY = -111, "Directory not empty";
    SESSION_EXPIRED = -112, "Session expired";
    INVALID_CALLBACK = -113, "Invalid callback";
    INVALID_ACL = -114, "InvalidACL";
    AUTH_FAILED = -115, "AuthFailed";
    SESSION_MOVED = -118, "Session moved";
    NOT_READ_ONLY = -119, "Not a read-only call";
    EPHEMERAL_ON_LOCAL_SESSION = -120, "Ephemeral node on local session";
    NO_WATCHER = -121, "No such watcher";
    REQUEST_TIMEOUT = -122, "Request timeout";
    RECONFIG_DISABLED = -123, "Reconfig is disabled";
    SESSION_CLOSED_REQUIRE_SASL_AUTH = -124, "Session closed because client failed to authenticate";
    QUOTA_EXCEEDED = -125, "Quota has exceeded";
    THROTTLED_OP = -127, "Op throttled due to high load";
}

impl std::fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "error {}", self.0),
        }
    }
}
