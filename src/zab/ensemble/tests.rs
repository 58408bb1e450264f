use super::*;
use proptest::prelude::*;

fn printed(text: &str) -> String {
    EnsembleConfig::parse(text.as_bytes()).unwrap_or_else(|problem| panic!("{text}: {problem}")).text().to_owned()
}

const FIVE: &str = "server.1=h:1:2\nserver.2=h:1:3\nserver.3=h:1:4\nserver.4=h:1:5\nserver.5=h:1:6\n";
const FIVE_PRINTED: &str = "server.1=h:1:2:participant\nserver.2=h:1:3:participant\nserver.3=h:1:4:participant\n\
                            server.4=h:1:5:participant\nserver.5=h:1:6:participant\n";

/// What ZooKeeper 3.9.5 prints for the same text.
#[test]
fn the_text_is_zookeepers_byte_for_byte() {
    let cases = [
        (
            "server.1=127.0.0.1:1:2\nserver.2=127.0.0.1:3:4:observer;2181\nversion=100000000",
            "server.1=127.0.0.1:1:2:participant\nserver.2=127.0.0.1:3:4:observer;0.0.0.0:2181\nversion=100000000",
        ),
        (
            "server.1=[::1]:1:2;[2001:db8::a]:2181\nserver.2=[fe80::1]:1:2\nserver.3=[::ffff:1.2.3.4]:1:2",
            "server.1=[0:0:0:0:0:0:0:1]:1:2:participant;[2001:db8:0:0:0:0:0:a]:2181\n\
             server.2=[fe80:0:0:0:0:0:0:1]:1:2:participant\nserver.3=1.2.3.4:1:2:participant\nversion=0",
        ),
        (
            "server.1=localhost:1:2;localhost:2181\nserver.20=no.such.host.invalid:3:4\nserver.17=127.0.0.1:3:4\n\
             server.3=127.0.0.1:5:6",
            "server.1=localhost:1:2:participant;localhost:2181\nserver.17=127.0.0.1:3:4:participant\n\
             server.3=127.0.0.1:5:6:participant\nserver.20=no.such.host.invalid:3:4:participant\nversion=0",
        ),
        ("server.1=h2:1:2|h1:3:4", "server.1=h1:3:4|h2:1:2:participant\nversion=0"),
        (
            "server.1=h2:1:2:observer|h1:3:4:observer;5\nserver.2=h:1:2",
            "server.1=h1:3:4|h2:1:2:observer;0.0.0.0:5\nserver.2=h:1:2:participant\nversion=0",
        ),
        ("server.1=a:1:2|a:3:4|b:9:1", "server.1=a:1:2|a:3:4|b:9:1:participant\nversion=0"),
        ("server.1=h:1:2\nserver.1=h:1:3\nversion=-1", "server.1=h:1:3:participant\nversion=ffffffffffffffff"),
        ("server.1=h:1:2\nserver.01=h:1:3", "server.1=h:1:3:participant\nversion=0"),
    ];
    for (text, expected) in cases {
        assert_eq!(printed(text), expected, "{text}");
    }
}

#[test]
fn groups_and_weights_are_printed_after_the_members() {
    let all_one = "weight.1=1\nweight.2=1\nweight.3=1\nweight.4=1\nweight.5=1\n";
    let cases = [
        (
            "group.1=1:2:3\ngroup.2=4:5\nweight.4=0\nversion=1f",
            "group.1=1:2:3\ngroup.2=4:5\nweight.1=1\nweight.2=1\nweight.3=1\nweight.4=0\nweight.5=1\nversion=1f"
                .to_owned(),
        ),
        ("group.1=1:2:3:\ngroup.2=4:5", format!("group.1=1:2:3\ngroup.2=4:5\n{all_one}version=0")),
        ("group.20=1:2:3\ngroup.3=4:5", format!("group.3=4:5\ngroup.20=1:2:3\n{all_one}version=0")),
        ("groupx.1=1:2:3\ngroup.2=4:5", format!("group.1=1:2:3\ngroup.2=4:5\n{all_one}version=0")),
        (
            "group.1=1:2:3\ngroup.2=4:5\nweight.9=3",
            format!("group.1=1:2:3\ngroup.2=4:5\n{all_one}weight.9=3\nversion=0"),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(printed(&format!("{FIVE}{text}")), format!("{FIVE_PRINTED}{expected}"), "{text}");
    }
}

#[test]
fn members_stand_in_the_order_of_javas_hash_table() {
    let order = |ids: &[u64]| -> Vec<u64> {
        let text: String = ids.iter().map(|id| format!("server.{id}=h:1:2\n")).collect();
        let printed = printed(&text);
        let ids = printed.lines().filter_map(|line| line.strip_prefix("server."));
        ids.map(|line| line.split('=').next().unwrap().parse().unwrap()).collect()
    };
    let twelve: Vec<u64> = (1..=12).map(|n| n * 7).collect();
    // By id modulo the size of the table, which is 16 up to twelve members.
    assert_eq!(order(&twelve), [49, 35, 84, 21, 70, 7, 56, 42, 28, 77, 14, 63]);
    let thirteen: Vec<u64> = (1..=13).map(|n| n * 7).collect();
    assert_eq!(order(&thirteen), [35, 70, 7, 42, 77, 14, 49, 84, 21, 56, 91, 28, 63], "the table has doubled");
    let thirty: Vec<u64> = (1..=30).map(|n| n * 3).collect();
    assert_eq!(order(&thirty)[..6], [66, 3, 69, 6, 72, 9]);
}

#[test]
fn what_zookeeper_refuses_is_refused() {
    let bad = [
        "",
        "version=0",
        "server.1=h:1:2:observer",
        "server.x=h:1:2",
        "server.1.x=h:1:2",
        "server.1=h:1:2;3;4",
        "server.1=h:1:2\nfoo=1",
        "server.1=h:1:2\nversion=xyz",
        "server.1=h:1:2\nversion=ffffffffffffffff",
        "server.1=h:1:2\nweight.1=2",
        "server.1=h:1:2\ngroup.1=1::1",
        "server.1=h:1:2\ngroup.1= 1:x",
        "server.1=h:1:2\ngroup=1",
        "server.1=h:1:2\ngroup.a=1",
        "server.1=h:1:2\ngroup.1=1\nweight.1=x",
        "server.1=h:1:2\ngroup.1=1\nweight.1=-1",
        "server.300=h:1:2",
        "server.1=h\u{e4}:1:2",
    ];
    for text in bad {
        assert!(EnsembleConfig::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert!(EnsembleConfig::parse(b"server.1=h:1:2\n\0").is_err());
}

#[test]
fn the_same_members_have_the_same_text_under_another_version() {
    let text = "server.1=h:1:2\nserver.2=h:1:3\ngroup.1=1:2\nweight.1=2\n";
    let [old, new] = ["version=0", "version=10000000f"].map(|version| printed(&format!("{text}{version}")));
    let config = EnsembleConfig::parse(old.as_bytes()).unwrap().with_version(Zxid(0x1_0000_000f));
    assert_eq!((config.text(), config.version()), (new.as_str(), Zxid(0x1_0000_000f)));
}

#[test]
fn while_a_reconfiguration_is_under_way_both_configurations_count() {
    let config = |text: &str| Arc::new(EnsembleConfig::parse(text.as_bytes()).unwrap());
    let old = config("server.1=h:1:2\nserver.2=h:1:3\nserver.3=h:1:4\nversion=1");
    let new = config("server.1=h:1:2\nserver.4=h:1:5\nserver.5=h:9:6\nserver.6=h:9:7:observer\nversion=2");
    let set = |ids: &[u8]| -> ServerSet { ids.iter().copied().map(ServerId).collect() };
    let both = Configs::new(old.clone(), Some(new.clone()));
    assert_eq!(both.voters(), set(&[1, 2, 3, 4, 5]));
    assert!(both.is_member(ServerId(6)) && !both.is_member(ServerId(7)));
    assert!(!both.contains_quorum(set(&[1, 2, 3])) && !both.contains_quorum(set(&[1, 4, 5])));
    assert!(both.contains_quorum(set(&[1, 2, 4])));
    let settled = Configs::new(new, Some(old));
    assert!(settled.next().is_none(), "an older one is not in force");
    assert_eq!(settled.server(ServerId(5)).unwrap().addresses[0].quorum_port, 9);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(server\\.|group\\.|weight\\.|version=|[0-9a-f:;=|\\n\\[\\]]){0,30}") {
        if let Ok(config) = EnsembleConfig::parse(text.as_bytes()) {
            let again = EnsembleConfig::parse(config.text().as_bytes()).unwrap();
            prop_assert_eq!(again.text(), config.text());
        }
    }
}
