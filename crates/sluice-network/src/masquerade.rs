//! Which packets leave with the node's address: the table `inet sluice-nat` (networking 8).
//!
//! One chain at postrouting, priority 110, behind kube-proxy's 100. First match wins; the six rules of the clause
//! in its order, for both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sluice_addr::Cidr;
use sluice_netlink::nft::{
    Chain, ChainKind, Expr, Family, Field, Hook, HookPoint, KeyType, Policy, Rule, Set, SetKey, SetValue,
    Table, Verdict,
};

/// Name of the table.
pub const TABLE: &str = "sluice-nat";
/// The mark by which kube-proxy, and the lab's proxy, ask for masquerading. Sluice reads it masked and never
/// writes it here (networking 9.1).
pub const MASQUERADE_MARK: u32 = 0x4000;

/// `RTN_BROADCAST` of linux/rtnetlink.h, a result of a FIB lookup.
const FIB_TYPE_BROADCAST: u32 = 3;

/// What is inside the cluster, and what is not to be hidden behind the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MasqueradeConfig {
    /// All pod addresses, one CIDR or more per family.
    pub cluster_cidrs: Vec<Cidr>,
    /// The node's own pod CIDRs, former ones with pods in them included.
    pub pod_cidrs: Vec<Cidr>,
    /// Destinations outside the cluster that see the pod's own address (`natOutgoingExclusions`).
    pub exclusions: Vec<Cidr>,
}

/// The table that says so.
#[must_use]
pub fn table(config: &MasqueradeConfig) -> Table {
    let mut table = Table::new(Family::Inet, TABLE);
    let masquerade = Expr::Masquerade { random: false, fully_random: true };
    let back = || Expr::Verdict(Verdict::Return);
    let mut rules = vec![
        Rule::new([Expr::masked(Field::Mark, MASQUERADE_MARK, MASQUERADE_MARK), back()])
            .comment("1: the service proxy decides"),
    ];
    for (field, addr, len) in [
        (Field::IpDaddr, IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
        (Field::IpDaddr, IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
        (Field::IpDaddr, IpAddr::V4(Ipv4Addr::BROADCAST), 32),
        (Field::Ip6Daddr, IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
        (Field::Ip6Daddr, IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    ] {
        let to = Expr::Prefix { field, op: sluice_netlink::nft::CmpOp::Eq, addr, len };
        rules.push(Rule::new([to, back()]).comment("2: multicast, link-local, broadcast"));
    }
    rules.push(
        Rule::new([Expr::eq(Field::FibDaddrType, FIB_TYPE_BROADCAST), back()])
            .comment("2: directed broadcast"),
    );
    for (version, key, saddr, daddr) in [
        (sluice_addr::Family::V4, KeyType::Ipv4Addr, Field::IpSaddr, Field::IpDaddr),
        (sluice_addr::Family::V6, KeyType::Ipv6Addr, Field::Ip6Saddr, Field::Ip6Daddr),
    ] {
        let name = |what: &str| format!("{what}{}", version.version());
        let of_family = |cidrs: &[Cidr]| cidrs.iter().copied().filter(|c| c.family() == version).collect();
        let mut set = |what: &str, cidrs: &[Cidr]| {
            table.sets.insert(name(what), interval_set(key, of_family(cidrs)));
        };
        set("cluster", &config.cluster_cidrs);
        set("own", &config.pod_cidrs);
        set("excluded", &config.exclusions);
        let inside = |field| Expr::lookup([field], name("cluster"));
        let outside = |field| Expr::not_in([field], name("cluster"));
        rules.extend([
            Rule::new([inside(saddr), inside(daddr), back()]).comment("3: inside the cluster"),
            Rule::new([outside(saddr), Expr::lookup([daddr], name("own")), back()])
                .comment("4: from outside to a pod of this node"),
            Rule::new([inside(saddr), Expr::lookup([daddr], name("excluded")), back()])
                .comment("5: excluded destination"),
            Rule::new([inside(saddr), outside(daddr), Expr::Counter, masquerade.clone()])
                .comment("5: out of the cluster"),
            Rule::new([outside(saddr), inside(daddr), Expr::Counter, masquerade.clone()])
                .comment("6: from outside to a pod of a peer"),
        ]);
    }
    let hook =
        Hook { hook: HookPoint::Postrouting, kind: ChainKind::Nat, priority: 110, policy: Policy::Accept };
    table.chains.insert("postrouting".to_owned(), Chain::base(hook, rules));
    table
}

/// A set of disjoint ranges: a CIDR inside another one is left out, because the kernel refuses overlaps.
pub(crate) fn interval_set(key: KeyType, mut cidrs: Vec<Cidr>) -> Set {
    cidrs.sort_unstable_by_key(|c| (c.prefix(), c.base()));
    let mut kept: Vec<Cidr> = Vec::new();
    for cidr in cidrs {
        if !kept.iter().any(|wider| wider.contains_cidr(cidr)) {
            kept.push(cidr);
        }
    }
    let mut set = Set::interval(key);
    set.elements.extend(kept.into_iter().map(|c| (SetKey::cidr(c.base(), c.prefix()), SetValue::None)));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_cidrs_become_one_range() {
        let cidrs = ["10.42.1.0/24", "10.42.0.0/16", "10.43.0.0/16", "10.42.0.0/16"];
        let set = interval_set(KeyType::Ipv4Addr, cidrs.iter().map(|c| c.parse().unwrap()).collect());
        let ranges: Vec<_> = set.elements.keys().cloned().collect();
        assert_eq!(
            ranges,
            [SetKey::cidr("10.42.0.0".parse().unwrap(), 16), SetKey::cidr("10.43.0.0".parse().unwrap(), 16)]
        );
    }

    #[test]
    fn every_set_that_a_rule_names_exists_and_families_do_not_mix() {
        let table = table(&MasqueradeConfig {
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap(), "fd00:42::/56".parse().unwrap()],
            pod_cidrs: vec!["10.42.1.0/24".parse().unwrap()],
            exclusions: vec![],
        });
        let rules = &table.chains["postrouting"].rules;
        for set in rules.iter().flat_map(|r| r.exprs.iter().filter_map(Expr::set)) {
            assert!(table.sets.contains_key(set), "{set}");
        }
        assert_eq!(table.sets["cluster4"].elements.len(), 1);
        assert_eq!(table.sets["cluster6"].elements.len(), 1);
        assert_eq!(table.sets["own6"].elements.len(), 0);
    }
}
