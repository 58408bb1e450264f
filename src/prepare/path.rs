//! Which paths a znode may have (upstream: `PathUtils`, `ZKDatabase.isSpecialPath`).

use crate::limits;
use crate::tree::{find_last_slash, find_slash};

/// Whether a znode may be created, written or checked under this path.
pub fn is_valid(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    rest.is_empty()
        || rest.len() < limits::PATH_MAX
            && names_are_valid(rest.as_bytes())
            && (rest.is_ascii() || rest.chars().all(is_allowed))
}

/// No empty name, none of one or two dots, none with a control character of ASCII.
fn names_are_valid(bytes: &[u8]) -> bool {
    // Without a way out in the middle, the compiler looks at many bytes at a time.
    let controls = bytes.iter().fold(false, |any, &byte| any | (byte < 0x20) | (byte == 0x7f));
    let is_valid = |name: &[u8]| !matches!(name, [] | [b'.'] | [b'.', b'.']);
    let mut rest = bytes;
    while let Some(at) = find_slash(rest) {
        if !is_valid(&rest[..at]) {
            return false;
        }
        rest = &rest[at + 1..];
    }
    is_valid(rest) && !controls
}

/// Control characters, surrogates, private use, specials: none of them. What Java writes as a pair of surrogates neither.
fn is_allowed(c: char) -> bool {
    !matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)
}

/// The parent's path, for a create. `None` where there can't be one. The rest of the path is checked later, after the
/// parent has been looked at.
pub fn parent_for_create(path: &str) -> Option<&str> {
    let slash = find_last_slash(path.as_bytes())?;
    // A path's first part being empty, the parent of `/a` is the empty path: another name of the root.
    let parent = if slash == 0 { "/" } else { &path[..slash] };
    (!path.contains('\0')).then_some(parent)
}

/// The parent's path, for a delete: as for a create, but for the four paths that are always there.
pub fn parent_for_delete(path: &str) -> Option<&str> {
    match path {
        "/" | "/zookeeper" | "/zookeeper/quota" | "/zookeeper/config" => None,
        _ => parent_for_create(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_judged_as_upstream() {
        for good in ["/", "/a", "/s/.b", "/s/..b", "/s/b.", "/s/b..", "/s/...", "/ ", "/\"\\%", "/é"] {
            assert!(is_valid(good), "{good}");
        }
        for good in ['\u{a0}', '\u{d7ff}', '\u{f900}', '\u{ffef}'] {
            assert!(is_valid(&format!("/x{good}y")), "{good:?}");
        }
        for bad in ["", "a", "a/b", "/a/", "//", "//a", "/a//b", "/.", "/..", "/a/./b", "/a/..", "/./a"] {
            assert!(!is_valid(bad), "{bad}");
        }
        for bad in ['\0', '\x01', '\x1f', '\x7f', '\u{9f}', '\u{e000}', '\u{f8ff}', '\u{fff0}', '\u{fffd}', '😀'] {
            assert!(!is_valid(&format!("/x{bad}y")), "{bad:?}");
        }
    }

    #[test]
    fn parents_are_found_before_a_path_is_judged() {
        let parents = ["/a", "/a/b", "/a/", "/", "//", "a/b", "a", "", "/\0"].map(parent_for_create);
        let expected = [Some("/"), Some("/a"), Some("/a"), Some("/"), Some("/"), Some("a"), None, None, None];
        assert_eq!(parents, expected);
        assert_eq!(parent_for_delete("/zookeeper/quota"), None);
        assert_eq!(parent_for_delete("/zookeeper/quota/a"), Some("/zookeeper/quota"));
    }
}
