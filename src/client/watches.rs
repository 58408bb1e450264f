//! The watches that a client believes it has: whom to tell, and what to ask for again after a reconnect.
//!
//! A server knows paths and kinds only; who wanted to know is kept here. One-shot watches leave with their event,
//! persistent ones when they are removed. Paths are the server's (chroot included).
//!
//! Runs on: the client's driver thread.

use super::event::{Event, EventType};
use crate::random::FastMap;
use crate::wire::client::SetWatchesRequest;
use std::borrow::Cow;
use std::sync::mpsc::Sender;

/// What to tell when a watch fires.
#[derive(Clone, Debug)]
pub enum Watcher {
    /// The function that the client was opened with.
    Default,
    /// Whoever holds the other end. A dropped receiver is no error.
    Channel(Sender<Event>),
}

/// The kinds that the client tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    /// On a node that did not exist.
    Exist,
    Child,
    Persistent,
    Recursive,
}

const KINDS: usize = 5;

#[derive(Default)]
pub(super) struct Watches {
    tables: [FastMap<String, Vec<Watcher>>; KINDS],
}

/// Characters of paths in one setWatches request, so that it stays far below the server's largest frame.
const SET_WATCHES_CHARACTERS: usize = 128 << 10;

impl Watches {
    /// The default watcher is told once, however often it asked.
    pub fn add(&mut self, kind: Kind, path: String, watcher: Watcher) {
        let list = self.tables[kind as usize].entry(path).or_default();
        let again = matches!(watcher, Watcher::Default) && list.iter().any(|one| matches!(one, Watcher::Default));
        if !again {
            list.push(watcher);
        }
    }

    /// Who is told of an event at `path`; one-shot watches are used up.
    pub fn fire(&mut self, kind: EventType, path: &str) -> Vec<Watcher> {
        let one_shot: &[Kind] = match kind {
            EventType::NodeCreated | EventType::NodeDataChanged => &[Kind::Data, Kind::Exist],
            EventType::NodeDeleted => &[Kind::Data, Kind::Exist, Kind::Child],
            EventType::NodeChildrenChanged => &[Kind::Child],
            _ => &[],
        };
        let mut told = Vec::new();
        for kind in one_shot {
            told.extend(self.tables[*kind as usize].remove(path).unwrap_or_default());
        }
        told.extend(self.tables[Kind::Persistent as usize].get(path).into_iter().flatten().cloned());
        if kind != EventType::NodeChildrenChanged {
            let recursive = &self.tables[Kind::Recursive as usize];
            if !recursive.is_empty() {
                let mut ancestor = path;
                loop {
                    told.extend(recursive.get(ancestor).into_iter().flatten().cloned());
                    if ancestor == "/" {
                        break;
                    }
                    ancestor = match ancestor.rfind('/') {
                        Some(0) | None => "/",
                        Some(at) => &ancestor[..at],
                    };
                }
            }
        }
        let mut default_told = false;
        told.retain(|one| !matches!(one, Watcher::Default) || !std::mem::replace(&mut default_told, true));
        told
    }

    pub fn has(&self, kinds: &[Kind], path: &str) -> bool {
        kinds.iter().any(|kind| self.tables[*kind as usize].contains_key(path))
    }

    /// Forgets the watches of one kind on `path` and returns whom to tell.
    pub fn remove(&mut self, kind: Kind, path: &str) -> Vec<Watcher> {
        self.tables[kind as usize].remove(path).unwrap_or_default()
    }

    /// What a client asks for again on a new connection, in pieces.
    pub fn set_again(&self, last_zxid: i64) -> Vec<SetWatchesRequest<'_>> {
        let mut requests = Vec::new();
        let mut request = empty(last_zxid);
        let mut characters = 0;
        for (kind, table) in self.tables.iter().enumerate() {
            let mut paths: Vec<&String> = table.keys().collect();
            paths.sort();
            for path in paths {
                let lists = [
                    &mut request.data,
                    &mut request.exist,
                    &mut request.child,
                    &mut request.persistent,
                    &mut request.recursive,
                ];
                let [data, exist, child, persistent, recursive] = lists;
                let list = [data, exist, child, persistent, recursive][kind].get_or_insert_default();
                list.push(Some(Cow::Borrowed(path.as_str())));
                characters += path.len();
                if characters >= SET_WATCHES_CHARACTERS {
                    requests.push(std::mem::replace(&mut request, empty(last_zxid)));
                    characters = 0;
                }
            }
        }
        if characters > 0 {
            requests.push(request);
        }
        requests
    }
}

fn empty<'a>(relative_zxid: i64) -> SetWatchesRequest<'a> {
    let none = || Some(Vec::new());
    SetWatchesRequest {
        relative_zxid,
        data: none(),
        exist: none(),
        child: none(),
        persistent: none(),
        recursive: none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(watches: &mut Watches, kind: EventType, path: &str) -> usize {
        watches.fire(kind, path).len()
    }

    #[test]
    fn one_shot_watches_fire_once_and_persistent_ones_stay() {
        let (sender, _receiver) = std::sync::mpsc::channel();
        let mut watches = Watches::default();
        watches.add(Kind::Data, "/a".into(), Watcher::Default);
        watches.add(Kind::Data, "/a".into(), Watcher::Default);
        watches.add(Kind::Data, "/a".into(), Watcher::Channel(sender.clone()));
        watches.add(Kind::Persistent, "/a".into(), Watcher::Channel(sender.clone()));
        watches.add(Kind::Recursive, "/".into(), Watcher::Channel(sender));
        assert_eq!(count(&mut watches, EventType::NodeChildrenChanged, "/a"), 1, "a recursive watch hears no children");
        assert_eq!(count(&mut watches, EventType::NodeDataChanged, "/a"), 4);
        assert_eq!(count(&mut watches, EventType::NodeDataChanged, "/a"), 2);
        assert_eq!(count(&mut watches, EventType::NodeDataChanged, "/a/b/c"), 1);
        assert_eq!(watches.remove(Kind::Recursive, "/").len(), 1);
        assert_eq!(count(&mut watches, EventType::NodeDataChanged, "/a/b/c"), 0);
    }

    #[test]
    fn what_is_set_again_is_what_has_not_fired() {
        let mut watches = Watches::default();
        watches.add(Kind::Child, "/c".into(), Watcher::Default);
        watches.add(Kind::Exist, "/e".into(), Watcher::Default);
        watches.add(Kind::Data, "/d".into(), Watcher::Default);
        watches.fire(EventType::NodeDeleted, "/d");
        let requests = watches.set_again(7);
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].relative_zxid, 7);
        assert_eq!(requests[0].data, Some(vec![]));
        assert_eq!(requests[0].exist.as_ref().unwrap()[0].as_deref(), Some("/e"));
        assert_eq!(requests[0].child.as_ref().unwrap()[0].as_deref(), Some("/c"));
        assert!(Watches::default().set_again(7).is_empty());
    }

    #[test]
    fn many_watches_go_in_several_requests() {
        let mut watches = Watches::default();
        for number in 0..3000 {
            watches.add(Kind::Data, format!("/{}{number}", "x".repeat(100)), Watcher::Default);
        }
        let requests = watches.set_again(1);
        assert_eq!(requests.len(), 3);
        assert_eq!(requests.iter().map(|request| request.data.as_ref().unwrap().len()).sum::<usize>(), 3000);
    }
}
