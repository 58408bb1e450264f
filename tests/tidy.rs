//! The house rules that can be checked: who may import whom, a header for each file, a line in docs for each dependency,
//! unsafe where it may be, no placeholder left.

use std::fs;
use std::path::Path;

/// Who may import whom: a module may use those on the lines above its own. The order of this list is the architecture.
const LEVELS: &[&[&str]] = &[
    &["ids", "limits", "clock", "random", "fatal", "metrics", "hosts"],
    &["wire", "disk", "config"],
    &["tree", "watch", "session", "auth", "log", "zab", "net", "client"],
    &["prepare", "read", "snapshot", "admin"],
    &["storage"],
    &["server"],
    &["cli"],
];

/// Neighbours on one level that know each other on purpose: from, to, why.
const ALLOWED: &[(&str, &str, &str)] = &[("fatal", "ids", "a reason to stop names the zxid up to which all is well")];

/// The files that may be unsafe.
const UNSAFE: &[&str] = &["src/server/tree_lock.rs", "src/disk/mapped.rs", "src/disk/removal.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder of the package, with their path from its root.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn module_of(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap();
    inside.split('/').next().unwrap().trim_end_matches(".rs")
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&module))
}

/// Every `crate::name` of a text that is not in a comment, with its line number. Of a group, `crate::{a, b}`, the brace:
/// its names may be on other lines, and a module that is called so passes nowhere.
fn imports(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")).flat_map(|(number, line)| {
        line.match_indices("crate::").filter_map(move |(at, _)| {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                return None;
            }
            let rest = &line[at + "crate::".len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let end = if rest.starts_with(['{', '*']) { 1 } else { end };
            (end > 0).then_some((number + 1, &rest[..end]))
        })
    })
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for (file, text) in rust_files("src") {
        let module = module_of(&file);
        if matches!(module, "main" | "lib") {
            continue;
        }
        let own = level(module)
            .unwrap_or_else(|| panic!("{file}: give {module} a level here and a line in docs/architecture.md"));
        for (line, other) in imports(&text) {
            let allowed = other == module || ALLOWED.iter().any(|&(from, to, _)| (from, to) == (module, other));
            let down = level(other).is_some_and(|theirs| theirs < own);
            if !allowed && !down {
                wrong.push(match other {
                    "{" | "*" => {
                        format!("{file}:{line}: one `use crate::module` a line: a group or glob is not read here")
                    }
                    _ => format!("{file}:{line}: {module} may not know {other}"),
                });
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_of_imports_sees_what_it_is_for() {
    let text = "use crate::server::feed;\n// crate::cli is fine here\nlet x = crate::ids::Zxid(1);\n";
    assert_eq!(imports(text).collect::<Vec<_>>(), [(1, "server"), (3, "ids")]);
    // Not read, and so refused.
    let text = "use crate::{\n    cli,\n    wire::Reader,\n};\nuse crate::*;\nuse ::crate_of_others::{cli};\n";
    assert_eq!(imports(text).collect::<Vec<_>>(), [(1, "{"), (5, "*")]);
    assert!(["{", "*"].iter().all(|group| level(group).is_none()));
    assert!(level("wire") < level("tree") && level("tree") < level("prepare"));
}

#[test]
fn every_module_of_the_architecture_page_exists_and_has_a_level() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for module in LEVELS.iter().flat_map(|level| level.iter()) {
        assert!(page.contains(&format!("`{module}`")), "docs/architecture.md does not mention `{module}`");
        let (file, folder) = (format!("src/{module}.rs"), format!("src/{module}/mod.rs"));
        assert!(root().join(&file).exists() || root().join(&folder).exists(), "{module} is listed and does not exist");
    }
}

#[test]
fn every_file_begins_with_a_header() {
    // A `tests.rs` belongs to the file that it tests.
    let files = ["src", "tests", "benches"].into_iter().flat_map(rust_files);
    let bare: Vec<String> = files
        .filter(|(file, _)| !file.ends_with("/tests.rs"))
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(file, _)| file)
        .collect();
    assert!(bare.is_empty(), "without a `//!` header that says what problem they solve: {bare:?}");
}

#[test]
fn unsafe_is_where_it_may_be() {
    for (file, text) in rust_files("src") {
        let uses = text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
            ["unsafe {", "unsafe impl", "unsafe fn", "allow(unsafe"].iter().any(|form| line.contains(form))
        });
        assert!(!uses || UNSAFE.contains(&file.as_str()), "{file} is unsafe; say why in docs/architecture.md first");
        let blocks = text.matches("unsafe {").count() + text.matches("unsafe impl").count();
        let arguments = text.matches("SAFETY:").count();
        assert!(!uses || arguments >= blocks, "{file}: {blocks} unsafe blocks, {arguments} arguments for them");
    }
}

#[test]
fn no_placeholder_is_left() {
    for (file, text) in rust_files("src") {
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX"] {
            assert!(!text.contains(word), "{file} contains {word}");
        }
    }
}

#[test]
fn every_dependency_has_its_line() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let page = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies]");
        } else if inside && let Some((name, _)) = line.split_once('=') {
            let name = name.trim();
            let listed = page.lines().any(|line| line.split('|').nth(1).is_some_and(|cell| cell.contains(name)));
            assert!(listed, "docs/dependencies.md has no line for {name}");
        }
    }
}

#[test]
fn every_bench_of_the_manifest_exists() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for part in manifest.split("[[bench]]").skip(1) {
        let name = part.split("name = \"").nth(1).unwrap().split('"').next().unwrap();
        assert!(root().join(format!("benches/{name}.rs")).exists(), "benches/{name}.rs is named in Cargo.toml");
    }
}

#[test]
fn bugs_that_the_documentation_says_are_caught_can_be_put_back() {
    let known = include_str!("sim/broken.rs");
    let mut named = 0;
    for caught in include_str!("../docs/disasters.md").split("(caught: ").skip(1) {
        let names = caught.split(')').next().unwrap_or_default();
        for name in names.split('`').skip(1).step_by(2) {
            assert!(known.contains(&format!("    {name},\n")), "docs/disasters.md names {name}, which broken.rs lacks");
            named += 1;
        }
    }
    assert!(named > 10, "{named}");
}
