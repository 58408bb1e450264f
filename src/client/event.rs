//! What a client is told without having asked at that moment: changes under its watches, and the state of its session.

use crate::wire::client::EventKind;

/// Where a session stands. `Display` gives ZooKeeper's word in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No connection at the moment; the session may live on.
    Disconnected,
    SyncConnected,
    /// Connected to a server that takes no writes.
    ConnectedReadOnly,
    AuthFailed,
    /// The server has given the session up; ephemerals and watches are gone.
    Expired,
    /// Closed by its owner.
    Closed,
}

impl State {
    /// Whether nothing will ever come of this session again.
    pub fn is_final(self) -> bool {
        matches!(self, State::AuthFailed | State::Expired | State::Closed)
    }

    pub fn is_connected(self) -> bool {
        matches!(self, State::SyncConnected | State::ConnectedReadOnly)
    }

    /// The word that ZooKeeper's shell has in its prompt.
    pub fn prompt_word(self) -> &'static str {
        match self {
            State::Disconnected => "CONNECTING",
            State::SyncConnected => "CONNECTED",
            State::ConnectedReadOnly => "CONNECTEDREADONLY",
            State::AuthFailed => "AUTH_FAILED",
            State::Expired | State::Closed => "CLOSED",
        }
    }
}

/// What an event is about; numbers as on the wire, and those that only clients make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// The session's state changed.
    None,
    NodeCreated,
    NodeDeleted,
    NodeDataChanged,
    NodeChildrenChanged,
    DataWatchRemoved,
    ChildWatchRemoved,
    PersistentWatchRemoved,
}

impl From<EventKind> for EventType {
    fn from(kind: EventKind) -> EventType {
        match kind {
            EventKind::NodeCreated => EventType::NodeCreated,
            EventKind::NodeDeleted => EventType::NodeDeleted,
            EventKind::NodeDataChanged => EventType::NodeDataChanged,
            EventKind::NodeChildrenChanged => EventType::NodeChildrenChanged,
        }
    }
}

/// One notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub state: State,
    pub kind: EventType,
    /// Seen from the client's chroot; `None` where only the state changed.
    pub path: Option<String>,
    /// The transaction that caused it; -1 where there is none.
    pub zxid: i64,
}

impl Event {
    pub(super) fn of_state(state: State) -> Event {
        Event { state, kind: EventType::None, path: None, zxid: -1 }
    }
}

/// As ZooKeeper's clients print it.
impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.as_deref().unwrap_or("null");
        write!(f, "WatchedEvent state:{:?} type:{:?} path:{path} zxid: {}", self.state, self.kind, self.zxid)
    }
}
