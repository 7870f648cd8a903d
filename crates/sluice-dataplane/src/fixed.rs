//! The chains and sets that every table has: what a pod may send, what opens no flow, and the way to the legs.

use sluice_addr::{Family, Protocol};
use sluice_netlink::nft::{
    self, Chain, ChainKind, Expr, Field, Hook, HookPoint, KeyType, Policy, Rule, Set, SetKey, SetValue,
    Table, Value, ct_state, tcp_flags,
};

use crate::compile::{Site, index, key_type};
use crate::layout::*;

/// The chains and sets that every table has.
pub(crate) fn add_fixed(table: &mut Table, site: &Site) {
    for family in Family::BOTH {
        let (i, key) = (index(family), key_type(family));
        table.sets.insert(OWN[i].into(), Set::hash([KeyType::IfName, key]));
        table.sets.insert(EGRESS[i].into(), Set::hash([key]).to_verdicts());
        table.sets.insert(INGRESS[i].into(), Set::hash([key]).to_verdicts());
        let mut nodes = Set::hash([key]);
        for node in site.nodes.iter().filter(|a| Family::of(**a) == family) {
            nodes.elements.insert(SetKey::one(*node), SetValue::None);
        }
        table.sets.insert(NODES[i].into(), nodes);
    }
    let hook = |hook, priority| Hook { hook, kind: ChainKind::Filter, priority, policy: Policy::Accept };
    let chains = [
        (GUARD, Chain::base(hook(HookPoint::Prerouting, GUARD_PRIORITY), guard_rules(site))),
        (FORWARD, Chain::base(hook(HookPoint::Forward, FILTER_PRIORITY), forward_rules())),
        (
            INPUT,
            Chain::base(
                hook(HookPoint::Input, FILTER_PRIORITY),
                vec![Rule::new([from_pod(), jump(TO_NODE)])],
            ),
        ),
        (OUTPUT, Chain::base(hook(HookPoint::Output, FILTER_PRIORITY), output_rules())),
        (SOURCE, Chain::regular(source_rules(site))),
        (DISCOVERY, Chain::regular(discovery_rules())),
        (SANE, Chain::regular(sane_rules())),
        (FROM_POD, Chain::regular(from_pod_rules())),
        (TO_POD, Chain::regular(dispatch(&INGRESS, [Field::IpDaddr, Field::Ip6Daddr]))),
        (TO_NODE, Chain::regular(to_node_rules())),
    ];
    table.chains.extend(chains.map(|(name, chain)| (name.to_owned(), chain)));
}

fn guard_rules(site: &Site) -> Vec<Rule> {
    let mut rules = vec![Rule::new([from_pod(), jump(SOURCE)])];
    if let Some(port) = site.overlay_port {
        // Without this any host, and any pod, can inject frames with a forged inner source (networking 6).
        for (family, saddr) in [(Family::V4, Field::IpSaddr), (Family::V6, Field::Ip6Saddr)] {
            let matches = [
                Expr::eq(Field::L4Proto, Protocol::UDP.number()),
                Expr::eq(Field::ThDport, port),
                Expr::eq(Field::FibDaddrType, nft::FIB_TYPE_LOCAL),
                Expr::not_in([saddr], NODES[index(family)]),
            ];
            rules.push(dropped(matches, "tunnel packet that no node sent"));
        }
    }
    rules
}

/// What a pod may send at all (semantics 1.7). Every packet of every pod comes here, so that what is rare is asked last.
fn source_rules(site: &Site) -> Vec<Rule> {
    // Neighbour discovery comes before the address: it uses link-local and unspecified sources.
    let discovery = Expr::Verdict(nft::Verdict::Goto(DISCOVERY.into()));
    let icmpv6 = Expr::eq(Field::L4Proto, Protocol::ICMPV6.number());
    let mut rules = vec![
        Rule::new([is_family(Family::V6), icmpv6, discovery]),
        dropped([Expr::eq(Field::L4Proto, IPIP)], "IPIP from a pod"),
    ];
    if let Some(port) = site.overlay_port {
        for (family, daddr) in [(Family::V4, Field::IpDaddr), (Family::V6, Field::Ip6Daddr)] {
            let matches = [
                Expr::eq(Field::L4Proto, Protocol::UDP.number()),
                Expr::eq(Field::ThDport, port),
                Expr::lookup([daddr], NODES[index(family)]),
            ];
            rules.push(dropped(matches, "tunnel packet from a pod"));
        }
    }
    rules.push(owned(Family::V4));
    rules.push(owned(Family::V6));
    rules.push(drop_rule(NOT_OWNED));
    rules
}

/// ICMPv6 of pods: discovery as it must be passes, any other is no discovery or none that a pod may send.
fn discovery_rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for (types, hops) in [(&ND_FROM_POD[..], 255u8), (&MLD[..], 1u8)] {
        for type_ in types {
            rules.push(Rule::new([
                is_family(Family::V6),
                Expr::eq(Field::Icmpv6Type, *type_),
                Expr::eq(Field::Ip6HopLimit, hops),
                Expr::Verdict(nft::Verdict::Return),
            ]));
        }
    }
    rules.extend(drop_discovery("neighbour discovery that a pod may not send"));
    rules.push(owned(Family::V6));
    rules.push(drop_rule(NOT_OWNED));
    rules
}

const NOT_OWNED: &str = "source address that the pod does not own";

/// Passes what comes from an address of the interface's pod.
fn owned(family: Family) -> Rule {
    let (saddr, set) = match family {
        Family::V4 => (Field::IpSaddr, OWN[0]),
        Family::V6 => (Field::Ip6Saddr, OWN[1]),
    };
    Rule::new([Expr::lookup([Field::IifName, saddr], set), Expr::Verdict(nft::Verdict::Return)])
}

fn forward_rules() -> Vec<Rule> {
    let mut rules = live_flow_rules(nft::Verdict::Accept);
    rules.push(Rule::new([from_pod(), jump(SANE)]));
    rules.push(Rule::new([not_from_pod(), to_pod(), jump(SANE)]));
    rules.push(Rule::new([from_pod(), jump(FROM_POD)]));
    rules.push(Rule::new([to_pod(), jump(TO_POD)]));
    rules
}

/// Replies of an allowed flow, and errors that quote one of its packets (semantics 1.7, 1.10). Other related packets are
/// judged as new.
pub(crate) fn live_flow_rules(verdict: nft::Verdict) -> Vec<Rule> {
    let mut rules = vec![Rule::new([Expr::ct_state(ct_state::ESTABLISHED), Expr::Verdict(verdict.clone())])];
    for protocol in [Protocol::ICMP, Protocol::ICMPV6] {
        rules.push(Rule::new([
            Expr::ct_state(ct_state::RELATED),
            Expr::eq(Field::L4Proto, protocol.number()),
            Expr::Verdict(verdict.clone()),
        ]));
    }
    rules
}

/// Packets that belong to no live flow and cannot open one.
fn sane_rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    let stray = "ICMP error that quotes no flow";
    rules.extend(ICMP_ERRORS.map(|type_| drop_icmp(Family::V4, type_, type_, stray)));
    rules.push(drop_icmp(Family::V6, ICMPV6_ERRORS.0, ICMPV6_ERRORS.1, stray));
    // A transport header that is missing or truncated (semantics 1.7), which no match on ports would ever see. Other
    // protocols are judged even where conntrack calls them invalid: a SCTP packet without INIT, an ICMP type that it does
    // not know, UDPLite (whose checksum it computes as if it were UDP).
    for protocol in [Protocol::TCP, Protocol::UDP] {
        let invalid = Expr::ct_state(ct_state::INVALID);
        let exprs = [Expr::eq(Field::L4Proto, protocol.number()), invalid];
        rules.push(dropped(exprs, "no valid packet of its protocol"));
    }
    // A mid-stream segment never revives a flow that was cut (semantics 1.10), whatever nf_conntrack_tcp_loose says.
    rules.push(dropped([mid_stream()], "TCP segment of no live flow"));
    rules
}

/// What the node sends to its own pods always passes (semantics 1.5), but a late segment of its own would bring a flow
/// back that was opened by a pod and cut: conntrack would take the pod's next segment for a reply.
fn output_rules() -> Vec<Rule> {
    let no_live_flow =
        Expr::Masked { field: Field::CtState, mask: ct_state::ESTABLISHED, op: nft::CmpOp::Eq, value: 0 };
    vec![dropped([to_pod(), no_live_flow, mid_stream()], "TCP segment of no live flow")]
}

/// Every type of neighbour and listener discovery.
fn drop_discovery(text: &str) -> [Rule; 2] {
    [(130, 137), (143, 143)].map(|(first, last)| drop_icmp(Family::V6, first, last, text))
}

fn drop_icmp(family: Family, first: u8, last: u8, text: &str) -> Rule {
    let field = match family {
        Family::V4 => Field::IcmpType,
        Family::V6 => Field::Icmpv6Type,
    };
    let types = Expr::Range { field, op: nft::CmpOp::Eq, first: Value::U8(first), last: Value::U8(last) };
    dropped([is_family(family), types], text)
}

/// A TCP packet that is not the first of a connection.
pub(crate) fn mid_stream() -> Expr {
    let mask = tcp_flags::FIN | tcp_flags::SYN | tcp_flags::RST | tcp_flags::ACK;
    Expr::Masked { field: Field::TcpFlags, mask, op: nft::CmpOp::Ne, value: tcp_flags::SYN }
}

/// From a pod to its own node: the egress leg, after replies to the node's own connections and the link's neighbour
/// discovery (its hop limits were checked at prerouting).
fn to_node_rules() -> Vec<Rule> {
    let mut rules = live_flow_rules(nft::Verdict::Return);
    for type_ in ND_FROM_POD.iter().chain(&MLD) {
        let matches = Expr::eq(Field::Icmpv6Type, *type_);
        rules.push(Rule::new([is_family(Family::V6), matches, Expr::Verdict(nft::Verdict::Return)]));
    }
    rules.push(Rule::new([jump(SANE)]));
    rules.extend(dispatch(&EGRESS, [Field::IpSaddr, Field::Ip6Saddr]));
    rules
}

/// From a pod to anywhere else. Neighbour discovery is for its own link and never forwarded (semantics 1.7).
fn from_pod_rules() -> Vec<Rule> {
    let mut rules = drop_discovery("neighbour discovery is not forwarded").to_vec();
    rules.extend(dispatch(&EGRESS, [Field::IpSaddr, Field::Ip6Saddr]));
    rules
}

/// Fails closed: an address that no map knows belongs to a pod whose policy is not in the kernel yet.
fn dispatch(maps: &[&str; 2], fields: [Field; 2]) -> Vec<Rule> {
    let mut rules: Vec<Rule> =
        maps.iter().zip(fields).map(|(map, field)| Rule::new([Expr::vmap([field], *map)])).collect();
    rules.push(drop_rule("pod without policy in force"));
    rules
}

pub(crate) fn drop_rule(text: &str) -> Rule {
    dropped([], text)
}

/// Drops and counts what matches.
pub(crate) fn dropped(matches: impl IntoIterator<Item = Expr>, text: &str) -> Rule {
    let end = [Expr::Counter, Expr::Verdict(nft::Verdict::Drop)];
    Rule::new(matches.into_iter().chain(end).collect::<Vec<_>>()).comment(text)
}

pub(crate) fn is_family(family: Family) -> Expr {
    Expr::eq(
        Field::NfProto,
        match family {
            Family::V4 => nft::NFPROTO_IPV4,
            Family::V6 => nft::NFPROTO_IPV6,
        },
    )
}

pub(crate) fn from_pod() -> Expr {
    Expr::NamePrefix { field: Field::IifName, op: nft::CmpOp::Eq, prefix: POD_PREFIX.into() }
}

pub(crate) fn not_from_pod() -> Expr {
    Expr::NamePrefix { field: Field::IifName, op: nft::CmpOp::Ne, prefix: POD_PREFIX.into() }
}

pub(crate) fn to_pod() -> Expr {
    Expr::NamePrefix { field: Field::OifName, op: nft::CmpOp::Eq, prefix: POD_PREFIX.into() }
}

pub(crate) fn jump(chain: &str) -> Expr {
    Expr::Verdict(nft::Verdict::Jump(chain.into()))
}
