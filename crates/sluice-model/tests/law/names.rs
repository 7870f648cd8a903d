//! The table of resolved names: semantics 4, `domainNames`.

use std::net::IpAddr;
use std::time::Duration;

use sluice_model::{NameTable, Object, ObjectDelta, World};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `name: addresses` per delta.
fn shown(deltas: &[ObjectDelta]) -> Vec<String> {
    let show = |delta: &ObjectDelta| match delta {
        ObjectDelta::Upsert(Object::ResolvedName(name)) => {
            let addresses: Vec<String> = name.addresses.iter().map(IpAddr::to_string).collect();
            format!("{}: {}", name.name, addresses.join(" "))
        }
        ObjectDelta::Delete(key) => format!("{}: gone", key.name),
        other => panic!("{other:?}"),
    };
    deltas.iter().map(show).collect()
}

fn ips(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

#[test]
fn an_answer_holds_while_its_time_lasts() {
    let mut table = NameTable::default();
    assert_eq!(table.next_expiry(), None);
    assert_eq!(
        shown(&table.observe("a.com", ips("1.1.1.2 1.1.1.1"), at(10), at(100))),
        ["a.com: 1.1.1.1 1.1.1.2"]
    );
    assert_eq!(table.next_expiry(), Some(at(110)));
    assert!(table.expire(at(109)).is_empty());
    assert_eq!(shown(&table.expire(at(110))), ["a.com: gone"]);
    assert_eq!(table.next_expiry(), None);
    assert!(table.expire(at(200)).is_empty());
}

#[test]
fn answers_add_up_and_the_longest_time_of_an_address_holds() {
    let mut table = NameTable::default();
    table.observe("a.com", ips("1.1.1.1"), at(10), at(0));
    assert_eq!(shown(&table.observe("a.com", ips("1.1.1.2"), at(60), at(5))), ["a.com: 1.1.1.1 1.1.1.2"]);
    // a shorter time does not shorten, a longer one lengthens; neither changes the world
    assert!(table.observe("a.com", ips("1.1.1.2"), at(1), at(6)).is_empty());
    assert!(table.observe("a.com", ips("1.1.1.1"), at(30), at(6)).is_empty());
    assert!(table.expire(at(35)).is_empty());
    assert_eq!(shown(&table.expire(at(36))), ["a.com: 1.1.1.2"]);
    assert_eq!(shown(&table.expire(at(65))), ["a.com: gone"]);
}

#[test]
fn an_answer_at_the_moment_of_expiry_renews() {
    let mut table = NameTable::default();
    table.observe("a.com", ips("1.1.1.1"), at(10), at(0));
    assert!(table.observe("a.com", ips("1.1.1.1"), at(10), at(10)).is_empty());
    assert_eq!(table.next_expiry(), Some(at(20)));
    // other names expire with it
    table.observe("b.com", ips("2.2.2.2"), at(1), at(10));
    assert_eq!(
        shown(&table.observe("a.com", ips("1.1.1.3"), at(1), at(11))),
        ["a.com: 1.1.1.1 1.1.1.3", "b.com: gone"]
    );
}

#[test]
fn spellings_and_odd_answers() {
    let mut table = NameTable::default();
    assert_eq!(
        shown(&table.observe("WWW.G.com.", ips("::ffff:1.2.3.4"), at(5), at(0))),
        ["www.g.com: 1.2.3.4"]
    );
    // no addresses, no time, no name
    assert!(table.observe("b.com", [], at(5), at(0)).is_empty());
    assert!(table.observe("b.com", ips("1.1.1.1"), at(0), at(0)).is_empty());
    for none in ["", ".", ".g.com", "a..com"] {
        assert!(table.observe(none, ips("1.1.1.1"), at(5), at(0)).is_empty(), "{none}");
    }
    assert!(table.observe(&"x".repeat(254), ips("1.1.1.1"), at(5), at(0)).is_empty());
    // the longest time there is
    table.observe("c.com", ips("1.1.1.1"), Duration::MAX, at(1));
    assert!(table.expire(at(1_000_000)).iter().all(|delta| !format!("{delta:?}").contains("c.com")));
}

#[test]
fn what_is_kept_is_bounded_and_counted() {
    let mut table = NameTable::with_limits(2, 2);
    table.observe("a.com", ips("1.1.1.1"), at(10), at(0));
    table.observe("a.com", ips("1.1.1.2"), at(30), at(0));
    // the address that ends first makes room
    assert_eq!(shown(&table.observe("a.com", ips("1.1.1.3"), at(20), at(0))), ["a.com: 1.1.1.2 1.1.1.3"]);
    assert_eq!(table.left_out(), 1);
    table.observe("b.com", ips("2.2.2.2"), at(10), at(0));
    assert!(table.observe("c.com", ips("3.3.3.3"), at(10), at(0)).is_empty());
    assert_eq!(table.left_out(), 2);
    // a name that went makes room
    table.expire(at(10));
    assert_eq!(shown(&table.observe("c.com", ips("3.3.3.3"), at(10), at(11))), ["c.com: 3.3.3.3"]);
}

#[test]
fn a_world_that_follows_the_changes_holds_what_the_table_holds() {
    let (mut table, mut world) = (NameTable::default(), World::default());
    for step in 0..200u64 {
        let name = ["a.com", "b.com", "c.com"][(step * 7 % 3) as usize];
        let address = IpAddr::from([10, 0, 0, (step * 13 % 5) as u8]);
        let deltas = match step % 4 {
            3 => table.expire(at(step)),
            _ => table.observe(name, [address], at(1 + step * 11 % 9), at(step)),
        };
        deltas.into_iter().for_each(|delta| world.apply(delta));
        // whoever asks the table afresh gets the same
        let mut again = table.clone();
        let expired = again.expire(at(step + 1));
        for delta in &expired {
            let named = |key: &str| world.names.contains_key(key);
            match delta {
                ObjectDelta::Upsert(object) => assert!(named(&object.key().name)),
                ObjectDelta::Delete(key) => assert!(named(&key.name)),
            }
        }
        assert_eq!(world.names.is_empty(), table.next_expiry().is_none());
    }
    table.expire(at(1000)).into_iter().for_each(|delta| world.apply(delta));
    assert!(world.names.is_empty());
}
