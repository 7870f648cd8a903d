//! The small vocabulary of random worlds.

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;
use sluice_addr::Cidr;
use sluice_selector::{LabelSelector, Labels, Operator, Requirement, Selector};

pub(crate) const NAMESPACES: [&str; 3] = ["a", "b", "c"];
pub(crate) const NODES: [&str; 2] = ["n1", "n2"];
pub(crate) const ACCOUNTS: [&str; 2] = ["default", "robot"];
pub(crate) const SERVICES: [&str; 2] = ["s1", "s2"];
pub(crate) const PORT_NAMES: [&str; 3] = ["http", "dns", "peer"];
pub(crate) const PORTS: [u16; 6] = [53, 80, 81, 443, 8080, 40000];
/// Tiers that policies name; the last exists in no world.
pub(crate) const TIERS: [&str; 6] = ["default", "kube-admin", "kube-baseline", "early", "late", "missing"];
const KEYS: [&str; 3] = ["app", "env", "role"];
const VALUES: [&str; 3] = ["x", "y", "xy"];

pub(crate) fn one<'t>(rng: &mut impl Rng, of: &[&'t str]) -> &'t str {
    of.choose(rng).expect("vocabularies are not empty")
}

pub(crate) fn name(rng: &mut impl Rng, of: &[&str]) -> Arc<str> {
    one(rng, of).into()
}

/// The result of `make` with the given chance.
pub(crate) fn maybe<R: Rng, T>(rng: &mut R, chance: f64, make: impl FnOnce(&mut R) -> T) -> Option<T> {
    rng.random_bool(chance).then(|| make(rng))
}

/// Up to `most` results of `make`.
pub(crate) fn some<R: Rng, T>(rng: &mut R, most: usize, mut make: impl FnMut(&mut R) -> T) -> Vec<T> {
    (0..rng.random_range(0..=most)).map(|_| make(rng)).collect()
}

pub(crate) fn labels(rng: &mut impl Rng) -> Labels {
    let pairs: Vec<(&str, &str)> = some(rng, 3, |rng| (one(rng, &KEYS), one(rng, &VALUES)));
    let forged =
        maybe(rng, 0.05, |rng| (one(rng, &["pcns.env", "projectcalico.org/namespace"]), one(rng, &VALUES)));
    pairs.into_iter().chain(forged).collect()
}

/// A pod's address of one family, from a pool so small that pods collide now and then.
pub(crate) fn pod_address(rng: &mut impl Rng, v6: bool) -> IpAddr {
    let host = rng.random_range(1..=24u8);
    if v6 {
        IpAddr::from([0xfd00, 1, 0, 0, 0, 0, 0, u16::from(host)])
    } else {
        IpAddr::from([10, 1, 0, host])
    }
}

/// The address of a node, by its number.
pub(crate) fn node_address(node: u8, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(node)])
    } else {
        IpAddr::from([192, 168, 0, node])
    }
}

/// An address that is no pod's and no node's.
pub(crate) fn outside_address(rng: &mut impl Rng, v6: bool) -> IpAddr {
    let host = rng.random_range(0..8u8);
    if v6 {
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)])
    } else {
        IpAddr::from([203, 0, 113, host])
    }
}

/// Any address that occurs in random worlds.
pub(crate) fn address(rng: &mut impl Rng, v6: bool) -> IpAddr {
    match rng.random_range(0..10) {
        0..6 => pod_address(rng, v6),
        6 if !v6 && rng.random_bool(0.3) => IpAddr::from([10, 1, rng.random_range(1..=2), 0]),
        6 => node_address(rng.random_range(1..=2), v6),
        7 if v6 => IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]),
        7 => IpAddr::from([224, 0, 0, 1]),
        _ => outside_address(rng, v6),
    }
}

pub(crate) fn cidr(rng: &mut impl Rng) -> Cidr {
    let v6 = rng.random_bool(0.4);
    let prefixes: &[u8] = if v6 { &[0, 16, 112, 124, 126, 128] } else { &[0, 8, 24, 28, 30, 32] };
    let prefix = *prefixes.choose(rng).expect("prefixes are not empty");
    Cidr::new(address(rng, v6), prefix).expect("the prefix fits the family")
}

pub(crate) fn label_selector(rng: &mut impl Rng) -> LabelSelector {
    let match_labels = some(rng, 1, |rng| (name(rng, &KEYS), name(rng, &VALUES))).into_iter().collect();
    let match_expressions = some(rng, 1, |rng| {
        let operator = *[Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist]
            .choose(rng)
            .expect("there are operators");
        let values = match operator {
            Operator::In | Operator::NotIn => vec![name(rng, &VALUES), name(rng, &VALUES)],
            Operator::Exists | Operator::DoesNotExist => Vec::new(),
        };
        Requirement { key: name(rng, &KEYS), operator, values }
    });
    LabelSelector { match_labels, match_expressions }
}

/// A selector over plain labels.
pub(crate) fn selector(rng: &mut impl Rng) -> Selector {
    let key = name(rng, &KEYS);
    let value = name(rng, &VALUES);
    match rng.random_range(0..14) {
        0..3 => Selector::All,
        3..5 => Selector::Equals(key, value),
        5 => Selector::NotEquals(key, value),
        6 => Selector::Has(key),
        7 => Selector::Not(Box::new(Selector::Has(key))),
        8 => Selector::In(key, [value, name(rng, &VALUES)].into()),
        9 => Selector::NotIn(key, [value].into()),
        10 => Selector::StartsWith(key, "x".into()),
        11 => Selector::Equals("projectcalico.org/namespace".into(), name(rng, &NAMESPACES)),
        12 => Selector::and([Selector::Has(key), selector(rng)]),
        _ => Selector::or([Selector::Equals(key, value), selector(rng)]),
    }
}

/// A selector over the labels of namespaces or service accounts, and their names.
pub(crate) fn owner_selector(rng: &mut impl Rng, names: &[&str]) -> Selector {
    if rng.random_bool(0.3) {
        Selector::Equals("projectcalico.org/name".into(), name(rng, names))
    } else {
        selector(rng)
    }
}
