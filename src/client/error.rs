//! What can go wrong for a client: a server's answer, a lost connection, or a request that makes no sense.
//!
//! A lost connection and a lost session are ZooKeeper's error codes too, made up by the client; so a caller matches codes
//! in one place.

use crate::wire::{ErrorCode, Malformed};

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Said by the server, or by the client about its connection (`CONNECTION_LOSS`, `SESSION_EXPIRED`, `AUTH_FAILED`,
    /// `OPERATION_TIMEOUT`). After `CONNECTION_LOSS` a write may or may not have happened.
    Code {
        code: ErrorCode,
        /// The path that the request was about.
        path: Option<String>,
    },
    /// A path that no server would take; nothing was sent.
    Path(String),
    /// A connect string that makes no sense.
    Address(String),
    /// A reply that can't be read. The connection is given up.
    Malformed(Malformed),
}

impl Error {
    pub fn code(code: ErrorCode) -> Error {
        Error::Code { code, path: None }
    }

    /// Whether this is the server's (or the client's) `code`.
    pub fn is(&self, expected: ErrorCode) -> bool {
        matches!(self, Error::Code { code, .. } if *code == expected)
    }
}

/// As ZooKeeper's clients print it: `KeeperErrorCode = NoNode for /x`.
impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Code { code, path } => {
                match code.name() {
                    Some(name) => write!(f, "KeeperErrorCode = {name}")?,
                    None => write!(f, "KeeperErrorCode = Unknown error {}", code.0)?,
                }
                path.as_ref().map_or(Ok(()), |path| write!(f, " for {path}"))
            }
            Error::Path(problem) | Error::Address(problem) => f.write_str(problem),
            Error::Malformed(problem) => write!(f, "the server's reply can't be read: {problem}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Malformed> for Error {
    fn from(problem: Malformed) -> Error {
        Error::Malformed(problem)
    }
}
