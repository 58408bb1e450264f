//! The commands on znodes and watches.
//!
//! Runs on: the shell's thread.

use super::commands::{Call, Failure, Outcome};
use super::{access, err, out, print};
use crate::client::{AddWatchMode, Client, CreateMode, Error, Handle, Watch, WatchType, open_acl};
use crate::ids::TTL_MAX_MS;
use crate::wire::ErrorCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::VecDeque;
use std::time::Duration;

/// A third word sets the watch, as old scripts write it; with a notice.
fn watch(call: &Call<'_>, name: &str, form: &str) -> Watch {
    let old = call.given.words.len() > 1;
    if old {
        err(format_args!("'{name} path [watch]' has been deprecated. Please use '{name} {form} path' instead.\n"));
    }
    if old || call.given.has("w") { Watch::Default } else { Watch::No }
}

pub fn get(call: &Call<'_>) -> Outcome {
    let watch = watch(call, "get", "[-s] [-w]");
    let (data, stat) = call.client.get_data(call.word(0), watch).wait()?;
    let data = data.as_deref().unwrap_or(b"null");
    if call.given.has("x") {
        out(format_args!("{}\n", print::hexdump(data)));
    } else if call.given.has("b") {
        out(format_args!("{}\n", STANDARD.encode(data)));
    } else {
        out(format_args!("{}\n", String::from_utf8_lossy(data)));
    }
    if call.given.has("s") {
        out(format_args!("{}", print::stat(&stat, call.zone)));
    }
    Ok(())
}

pub fn stat(call: &Call<'_>) -> Outcome {
    let watch = watch(call, "stat", "[-w]");
    let stat = call.client.exists(call.word(0), watch).wait()?;
    out(format_args!("{}", print::stat(&stat, call.zone)));
    Ok(())
}

pub fn ls(call: &Call<'_>) -> Outcome {
    if call.given.has("?") {
        out(format_args!("usage: ls [options] path\n -?   help\n -R   recurse\n -s   stat\n -w   watch\n"));
        return Err(Failure::new(&*call.usage));
    }
    let watch = watch(call, "ls", "[-w]");
    let path = call.word(0);
    if call.given.has("R") {
        return visit(call.client, path, &watch, |path| {
            out(format_args!("{path}\n"));
            Ok(())
        });
    }
    let (mut names, stat) = call.client.get_children(path, watch).wait()?;
    print::sort(&mut names);
    out(format_args!("{}\n", print::java_list(&names)));
    if call.given.has("s") {
        out(format_args!("{}", print::stat(&stat, call.zone)));
    }
    Ok(())
}

/// Visits `root`, then for each node all its children before going into the first of them. What goes away meanwhile is
/// left out.
pub fn visit(client: &Client, root: &str, watch: &Watch, mut each: impl FnMut(&str) -> Outcome) -> Outcome {
    client.exists(root, Watch::No).wait()?;
    each(root)?;
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let mut names = match client.get_children(&path, watch.clone()).wait() {
            Ok((names, _)) => names,
            Err(error) if error.is(ErrorCode::NO_NODE) => continue,
            Err(error) => return Err(error.into()),
        };
        print::sort(&mut names);
        for name in &mut names {
            *name = join(&path, name);
            each(name)?;
        }
        waiting.extend(names.into_iter().rev());
    }
    Ok(())
}

pub fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

pub fn create(call: &Call<'_>) -> Outcome {
    let given = &call.given;
    let (sequential, ephemeral, container) = (given.has("s"), given.has("e"), given.has("c"));
    if container && (sequential || ephemeral) {
        return Err(Failure::new("-c cannot be combined with -s or -e. Containers cannot be ephemeral or sequential."));
    }
    let mode = match given.value("t") {
        Some(text) => {
            let ttl: i64 = text.parse().map_err(|_| Failure::new("-t argument must be a long value"))?;
            for (used, kind) in [(ephemeral, "Ephemeral"), (container, "Container")] {
                if used {
                    return Err(Failure::new(format!("TTLs cannot be used with {kind} znodes")));
                }
            }
            if !(1..=TTL_MAX_MS).contains(&ttl) {
                return Err(Failure::new(format!("ttl must be positive and cannot be larger than: {TTL_MAX_MS}")));
            }
            CreateMode::with_ttl(ttl, sequential)
        }
        None if container => CreateMode::CONTAINER,
        None => match (ephemeral, sequential) {
            (false, false) => CreateMode::PERSISTENT,
            (false, true) => CreateMode::PERSISTENT_SEQUENTIAL,
            (true, false) => CreateMode::EPHEMERAL,
            (true, true) => CreateMode::EPHEMERAL_SEQUENTIAL,
        },
    };
    let acl = match given.word(2) {
        None => open_acl(),
        Some(text) => access::parse(text).inspect_err(|_| err(format_args!("KeeperErrorCode = InvalidACL\n")))?,
    };
    let data = given.word(1).map(str::as_bytes);
    let (path, _) = call.client.create(call.word(0), data, &acl, mode).wait().inspect_err(|error| {
        if error.is(ErrorCode::INVALID_ACL) {
            err(format_args!("{error}\n"));
        }
    })?;
    err(format_args!("Created {path}\n"));
    Ok(())
}

pub fn set(call: &Call<'_>) -> Outcome {
    let version = call.number("v", -1)?;
    let text = call.word(1);
    let decoded;
    let data = if call.given.has("b") {
        decoded = STANDARD.decode(text).map_err(|error| Failure::new(format!("{text:?} is not base64: {error}")))?;
        &decoded
    } else {
        text.as_bytes()
    };
    let stat = call.client.set_data(call.word(0), Some(data), version).wait()?;
    if call.given.has("s") {
        out(format_args!("{}", print::stat(&stat, call.zone)));
    }
    Ok(())
}

/// The old form with the version as a second word is honoured: zkCli ignores the version and deletes all the same.
pub fn delete(call: &Call<'_>) -> Outcome {
    let mut version = call.number("v", -1)?;
    if let Some(text) = call.given.word(1) {
        err(format_args!(
            "'delete path [version]' has been deprecated. Please use 'delete [-v version] path' instead.\n"
        ));
        version = text.parse().map_err(|_| Failure::new(format!("{text:?} is not a version; nothing was deleted")))?;
    }
    Ok(call.client.delete(call.word(0), version).wait()?)
}

/// Deletes from the leaves up, `-b` requests at a time.
pub fn delete_all(call: &Call<'_>) -> Outcome {
    let batch = match call.given.value("b") {
        None => 1000,
        Some(text) => text.parse::<i32>().map_err(|_| Failure::new("-b argument must be an int value"))?,
    };
    let window = usize::try_from(batch).unwrap_or(1).max(1);
    let mut paths = vec![call.word(0).to_owned()];
    let mut next = 0;
    // A list from the top down: each node stands before its children.
    while let Some(path) = paths.get(next).cloned() {
        match call.client.get_children(&path, Watch::No).wait() {
            Ok((names, _)) => paths.extend(names.iter().map(|name| join(&path, name))),
            Err(error) if next > 0 && error.is(ErrorCode::NO_NODE) => {}
            Err(error) => return Err(error.into()),
        }
        next += 1;
    }
    let mut failed = false;
    let mut check = |handle: Handle<()>| match handle.wait() {
        Err(error) if !error.is(ErrorCode::NO_NODE) => failed = true,
        _ => {}
    };
    let mut in_flight: VecDeque<Handle<()>> = VecDeque::new();
    for path in paths.iter().rev() {
        if in_flight.len() >= window
            && let Some(oldest) = in_flight.pop_front()
        {
            check(oldest);
        }
        in_flight.push_back(call.client.delete(path, -1));
    }
    in_flight.into_iter().for_each(check);
    if failed {
        err(format_args!("Failed to delete some node(s) in the subtree!\n"));
    }
    Ok(())
}

pub fn sync(call: &Call<'_>) -> Outcome {
    match call.client.sync(call.word(0)).wait_for(Duration::from_secs(30)) {
        Ok(()) => out(format_args!("Sync is OK\n")),
        Err(Error::Code { code, .. }) => out(format_args!("Sync has failed. rc={}\n", code.0)),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

pub fn get_all_children_number(call: &Call<'_>) -> Outcome {
    let number = call.client.get_all_children_number(call.word(0)).wait()?;
    out(format_args!("{number}\n"));
    Ok(())
}

pub fn get_ephemerals(call: &Call<'_>) -> Outcome {
    let paths = call.client.get_ephemerals(call.given.word(0).unwrap_or("/")).wait()?;
    out(format_args!("{}\n", print::java_list(&paths)));
    Ok(())
}

pub fn add_watch(call: &Call<'_>) -> Outcome {
    let mode = match call.given.value("m").map(str::to_ascii_uppercase).as_deref() {
        Some("PERSISTENT") => AddWatchMode::Persistent,
        None | Some("PERSISTENT_RECURSIVE") => AddWatchMode::PersistentRecursive,
        Some(_) => return Err(Failure::new(&*call.usage)),
    };
    Ok(call.client.add_watch(call.word(0), mode, Watch::Default).wait()?)
}

pub fn remove_watches(call: &Call<'_>) -> Outcome {
    let kinds = [
        ("c", WatchType::Children),
        ("d", WatchType::Data),
        ("p", WatchType::Persistent),
        ("r", WatchType::PersistentRecursive),
    ];
    let kind = kinds.iter().find(|(option, _)| call.given.has(option)).map_or(WatchType::Any, |(_, kind)| *kind);
    Ok(call.client.remove_watches(call.word(0), kind, call.given.has("l")).wait()?)
}
