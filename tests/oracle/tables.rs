//! What requests are made of: names, paths, permissions, quotas, good and bad.

pub const NAMES: [&str; 12] =
    ["a", "b", "c", "d", "e", "n-", "lock-", "x y", "\u{e9}\u{20ac}", "\u{a0}", ".b", "b..\"'\\%"];

/// Paths that break a rule, or nearly do.
pub const BAD_PATHS: [&[u8]; 38] = [
    b"",
    b"a",
    b"a/b",
    b"/a/",
    b"//",
    b"/a//b",
    b"/.",
    b"/a/./b",
    b"/a/..",
    b"/../a",
    b"/a\0b",
    b"/a/\x01",
    b"/a/\x1f",
    b"/a/\x7f",
    b"/a/\xc2\x80",
    b"/a/\xc2\x9f",
    b"/a/\xc2\xa0",
    b"/a/\xee\x80\x80",             // U+E000
    b"/a/\xef\xa3\xbf",             // U+F8FF
    b"/a/\xef\xa4\x80",             // U+F900, legal
    b"/a/\xed\x9f\xbf",             // U+D7FF, legal
    b"/a/\xef\xbf\xaf",             // U+FFEF, legal
    b"/a/\xef\xbf\xb0",             // U+FFF0
    b"/a/\xef\xbf\xbd",             // U+FFFD
    b"/a/\xf0\x9f\x98\x80",         // outside the basic plane
    b"/a/\xed\xa0\xbd\xed\xb8\x80", // the same as two surrogates
    b"/a/\xed\xa0\xbd",             // a lone surrogate
    b"/a/\xff",
    b"/a/\xc0\x80",
    b"/a/\xe2\x82",
    b"/a/\xf0\x9f\x98",
    b"/a/\xf4\x90\x80\x80",
    b"/a/\xf8\x88\x80\x80\x80",
    b"/a/\x80\xbf",
    b"/a/\xe0\x80\xaf",
    b"/a/\xe2\x28\xa1",
    b"/a/\xf0\x80\x80\xaf/x",
    b"/zookeeper/config/",
];

pub type AclText = &'static [(i32, &'static str, &'static str)];

pub const GOOD_ACLS: [AclText; 14] = [
    &[(1, "world", "anyone")],
    &[(7, "world", "anyone")],
    &[(0, "world", "anyone")],
    &[(255, "world", "anyone")],
    &[(31, "digest", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=")],
    &[(31, "digest", "bob:ikIaKsbtGweaHnb/jKn7OHqbunM="), (1, "world", "anyone")],
    &[(31, "digest", "u:not-it"), (17, "digest", ":b")],
    &[(31, "auth", "")],
    &[(31, "auth", "x"), (1, "auth", "y"), (31, "auth", "z")],
    &[(31, "ip", "127.0.0.1")],
    &[(31, "ip", "127.0.0.0/8"), (1, "ip", "10.0.0.1")],
    &[(15, "ip", "0.0.0.0/0"), (16, "ip", "010.001.2.3/32")],
    &[(5, "world", "anyone"), (5, "world", "anyone"), (4, "world", "anyone")],
    &[(31, "ip", "::1/128"), (31, "ip", "fe80::/10"), (1, "world", "anyone")],
];

pub const BAD_ACLS: [AclText; 20] = [
    &[],
    &[(31, "world", "someone")],
    &[(31, "digest", "a")],
    &[(31, "digest", "a:")],
    &[(31, "digest", ":")],
    &[(31, "digest", "a:b:c")],
    &[(31, "digest", "")],
    &[(31, "ip", "localhost")],
    &[(31, "ip", "1.2.3")],
    &[(31, "ip", "1.2.3.256")],
    &[(31, "ip", "1.2.3.4/33")],
    &[(31, "ip", "1.2.3.4/")],
    &[(31, "ip", "1.2.3.4/-1")],
    &[(31, "ip", "1.2.3.4/8/8")],
    &[(31, "ip", "::ffff:1.2.3.4")],
    &[(31, "super", "")],
    &[(31, "nothing", "x")],
    &[(31, "sasl", "x")],
    &[(31, "", "")],
    &[(31, "world", "anyone"), (31, "digest", "a")],
];

pub const QUOTA_LIMITS: [&str; 7] = [
    "count=3,bytes=-1",
    "count=-1,bytes=50",
    "count=5,bytes=100=;byteHardLimit=200;countHardLimit=6",
    "count=-1,bytes=-1=;byteHardLimit=60",
    "count=-1,bytes=-1=;countHardLimit=4",
    "count=2,bytes=3",
    "countHardLimit=5",
];

/// Opcodes that servers refuse from clients; 13 is check, for multis only. Without -10 and 20: see the allowed differences.
pub const UNKNOWN: [i32; 11] = [0, 10, 13, 23, 99, -1, -9, -12, 108, 500, i32::MIN];
