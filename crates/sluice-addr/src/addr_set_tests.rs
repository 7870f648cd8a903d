use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    crate::parse_ip(text).unwrap()
}

fn set(texts: &[&str]) -> AddrSet {
    texts.iter().map(|text| text.parse::<Cidr>().unwrap()).collect()
}

/// Blocks with few free bits at both ends of both lines, so that a few dozen probes decide every question.
fn cidrs() -> impl Strategy<Value = Cidr> {
    let v4 = (prop_oneof![0u32..32, (u32::MAX - 31)..=u32::MAX], 24u8..=32);
    let v6 = (prop_oneof![0u128..32, (u128::MAX - 31)..=u128::MAX], 122u8..=128);
    prop_oneof![
        8 => v4.prop_map(|(base, prefix)| Cidr::new(Ipv4Addr::from_bits(base).into(), prefix).unwrap()),
        8 => v6.prop_map(|(base, prefix)| Cidr::new(Ipv6Addr::from_bits(base).into(), prefix).unwrap()),
        1 => Just(Cidr::ALL_V4),
        1 => Just(Cidr::ALL_V6),
    ]
}

fn sets() -> impl Strategy<Value = AddrSet> {
    proptest::collection::vec(cidrs(), 0..6).prop_map(AddrSet::from_cidrs)
}

fn probes() -> impl Iterator<Item = IpAddr> {
    let v4 = (0u32..300).chain(u32::MAX - 300..=u32::MAX).map(|bits| Ipv4Addr::from_bits(bits).into());
    let v6 = (0u128..80).chain(u128::MAX - 80..=u128::MAX).map(|bits| Ipv6Addr::from_bits(bits).into());
    v4.chain(v6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn algebra_agrees_with_membership(blocks in proptest::collection::vec(cidrs(), 0..6), b in sets()) {
        let a = AddrSet::from_cidrs(blocks.iter().copied());
        let (union, both, rest, other) = (a.union(&b), a.intersect(&b), a.subtract(&b), a.complement());
        for address in probes() {
            let (in_a, in_b) = (a.contains(address), b.contains(address));
            prop_assert_eq!(in_a, blocks.iter().any(|block| block.contains(address)));
            prop_assert_eq!(union.contains(address), in_a || in_b);
            prop_assert_eq!(both.contains(address), in_a && in_b);
            prop_assert_eq!(rest.contains(address), in_a && !in_b);
            prop_assert_eq!(other.contains(address), !in_a);
        }
        prop_assert_eq!(a.intersects(&b), !both.is_empty());
        prop_assert_eq!(a.is_superset(&b), both == b);
        prop_assert_eq!(other.complement(), a.clone());
        prop_assert!(a.union(&other).is_all());
        prop_assert_eq!(rest.union(&both), a);
    }

    #[test]
    fn blocks_make_up_the_set_and_are_disjoint(a in sets()) {
        let blocks = a.to_cidrs();
        prop_assert_eq!(AddrSet::from_cidrs(blocks.iter().copied()), a);
        for pair in blocks.windows(2) {
            prop_assert!(pair[0] < pair[1] && !pair[0].contains_cidr(pair[1]));
        }
    }

    #[test]
    fn blocks_of_a_range_are_exact(a in any::<u128>(), b in any::<u128>()) {
        let range = v6_range(a.min(b), a.max(b));
        prop_assert_eq!(AddrSet::from_cidrs(range.to_cidrs()), AddrSet::from(range));
        prop_assert!(range.to_cidrs().len() <= 254);
    }

    #[test]
    fn partition_covers_everything_once(sets in proptest::collection::vec(sets(), 0..5)) {
        let parts = partition(&sets);
        prop_assert!(parts.iter().map(|(range, _)| *range).collect::<AddrSet>().is_all());
        for pair in parts.windows(2) {
            prop_assert!(pair[0].0.last() < pair[1].0.first());
            prop_assert!(pair[0].0.family() != pair[1].0.family() || pair[0].1 != pair[1].1);
        }
        for (range, members) in &parts {
            for address in [range.first(), range.last()] {
                for (index, set) in sets.iter().enumerate() {
                    prop_assert_eq!(members.contains(index), set.contains(address));
                }
            }
        }
    }
}

#[test]
fn removing_a_cidr_keeps_what_another_covers() {
    // Hard case 25: the set is the union of what is left, in any order of removal.
    let all = ["10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32"];
    for keep in 0..8usize {
        let left: Vec<_> = (0..3).filter(|n| keep >> n & 1 == 1).map(|n| all[n]).collect();
        let widest = left.first().copied();
        assert_eq!(set(&left), widest.map(|widest| set(&[widest])).unwrap_or_default());
    }
    assert_eq!(set(&["10.0.0.0/25", "10.0.0.128/25"]), set(&["10.0.0.0/24"]));
}

#[test]
fn families_are_separate() {
    assert!(!set(&["0.0.0.0/0"]).intersects(&set(&["::/0"])));
    assert_eq!(set(&["0.0.0.0/0", "::/0"]), AddrSet::all());
    assert!(set(&["0.0.0.0/0"]).contains(ip("::ffff:1.2.3.4")));
    assert!(AddrSet::all_v6().contains(ip("fd00::1")) && AddrSet::all_v6().contains(ip("fe80::1")));
    assert_eq!(partition(&[]).len(), 2);
}

#[test]
fn shown_as_ranges() {
    let range = AddrRange::new(ip("10.0.0.1"), ip("10.0.0.9")).unwrap();
    assert_eq!(range.to_string(), "10.0.0.1-10.0.0.9");
    assert_eq!(
        range.to_cidrs().iter().map(Cidr::to_string).collect::<Vec<_>>(),
        ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/30", "10.0.0.8/31"]
    );
    assert_eq!(set(&["10.0.0.0/8", "::1/128"]).to_string(), "10.0.0.0/8, ::1");
    assert_eq!(AddrSet::new().to_string(), "none");
    assert!(AddrRange::new(ip("10.0.0.9"), ip("10.0.0.1")).is_err());
    assert!(AddrRange::new(ip("10.0.0.9"), ip("::1")).is_err());
}

#[test]
fn bounds_inside_the_mapped_range_do_no_harm() {
    // The complement of the blocks beside ::ffff:0:0/96 has bounds in it.
    let beside = set(&["::fffe:0:0/96", "::1:0:0:0/80"]);
    let other = beside.complement();
    assert!(!other.contains(ip("::fffe:0:1")));
    assert!(other.contains(ip("fd00::1")));
    assert!(partition(&[beside, other.clone()]).len() >= 5);
    assert!(AddrSet::from_cidrs(other.to_cidrs()).contains(ip("fd00::1")));
    let around = "::fffe:0:0/95".parse::<Cidr>().unwrap();
    assert_eq!(AddrSet::from(around).to_cidrs(), [around]);
}
