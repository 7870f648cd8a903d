//! Plan → the table that the kernel should hold.
//!
//! One set of chains and maps per *leg*, not per pod and not per policy: the cost of a packet does not grow with policies.
//! Allow is `return` (back to the base chain, where the other end's leg follows), deny is `drop` (final).

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrRange, Family, PortRange, PortSet, Protocol};
use sluice_model::{Direction, PodKey};
use sluice_netlink::nft::{
    self, Chain, ChainKind, Expr, Field, Hook, HookPoint, KeyType, Policy, Rule, Set, SetKey, SetValue,
    Table, Value, ct_state, tcp_flags,
};
use sluice_plan::{FunctionId, Leg, Plan, PortFunction, Subject, TransportMatch, Verdict};

use crate::layout::*;

/// What the dataplane must know beside the plan: where pods are attached and what belongs to the overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// The host interface of each attached local pod. A pod without one has no policy in the kernel and no traffic.
    pub interfaces: BTreeMap<PodKey, String>,
    /// Underlay addresses of all nodes, this one included.
    pub nodes: BTreeSet<IpAddr>,
    /// UDP port of the overlay; `None` without tunnel.
    pub overlay_port: Option<u16>,
}

/// The table for a plan.
pub fn compile(plan: &Plan, site: &Site) -> Table {
    let mut table = Table::new(nft::Family::Inet, TABLE);
    table.generation = Some(plan.generation);
    add_fixed(&mut table, site);
    let mut compiler = Compiler { plan, table, functions: BTreeMap::new(), legs: BTreeMap::new() };
    let mut attached: BTreeMap<IpAddr, Vec<&Subject>> = BTreeMap::new();
    for (key, interface) in &site.interfaces {
        for (address, subject) in plan.endpoints.get(key).iter().flat_map(|e| &e.addresses) {
            if let Some(subject) = plan.subjects.get(subject) {
                compiler.own(interface, *address);
                attached.entry(*address).or_default().push(subject);
            }
        }
    }
    for (address, subjects) in attached {
        compiler.dispatch(address, Direction::Egress, &subjects);
        compiler.dispatch(address, Direction::Ingress, &subjects);
    }
    let mut table = compiler.table;
    for chain in table.chains.values_mut() {
        for rule in &mut chain.rules {
            *rule = rule.canonical(nft::Family::Inet);
        }
    }
    table
}

struct Compiler<'a> {
    plan: &'a Plan,
    table: Table,
    functions: BTreeMap<FunctionId, Arc<str>>,
    legs: BTreeMap<(Direction, &'a Leg), Arc<str>>,
}

impl<'a> Compiler<'a> {
    fn own(&mut self, interface: &str, address: IpAddr) {
        let own = SetKey::Exact(vec![Value::from(interface), Value::from(address)]);
        self.insert(OWN[index(Family::of(address))], own, SetValue::None);
    }

    /// Leads an address to its leg. A contested address has several (semantics 1.9): all are asked in turn, so that the
    /// strictest holds.
    fn dispatch(&mut self, address: IpAddr, direction: Direction, subjects: &[&'a Subject]) {
        let family = index(Family::of(address));
        let map = match direction {
            Direction::Egress => EGRESS[family],
            Direction::Ingress => INGRESS[family],
        };
        let legs: BTreeSet<Arc<str>> =
            subjects.iter().map(|subject| self.leg(direction, subject.leg(direction))).collect();
        let chain = match legs.first() {
            Some(only) if legs.len() == 1 => only.clone(),
            _ => self.all_of(direction, &legs),
        };
        self.insert(map, SetKey::one(address), goto(&chain));
    }

    /// A chain that passes what every one of these legs passes.
    fn all_of(&mut self, direction: Direction, legs: &BTreeSet<Arc<str>>) -> Arc<str> {
        let chain = Chain::regular(legs.iter().map(|leg| Rule::new([jump(leg)])).collect());
        let wanted: Arc<str> = format!("{}-all-{:016x}", letter(direction), digest(legs)).into();
        let name = match self.table.chains.get(&*wanted) {
            Some(existing) if *existing == chain => wanted,
            Some(_) | None => self.free_name(wanted),
        };
        self.table.chains.insert(name.to_string(), chain);
        name
    }

    fn insert(&mut self, set: &str, key: SetKey, value: SetValue) {
        if let Some(set) = self.table.sets.get_mut(set) {
            set.elements.insert(key, value);
        }
    }

    /// The chain of a leg. Its name depends on direction and tiers only, so that a policy that is edited or a peer that
    /// comes changes elements, not chains; where two legs have the same tiers (Calico rules that look at the subject's own
    /// side) the functions tell them apart.
    fn leg(&mut self, direction: Direction, leg: &'a Leg) -> Arc<str> {
        if let Some(name) = self.legs.get(&(direction, leg)) {
            return name.clone();
        }
        let twins = self.plan.subjects.values().map(|s| s.leg(direction)).filter(|l| l.tiers == leg.tiers);
        let alone = twins.collect::<BTreeSet<_>>().len() == 1;
        let [by_tiers, by_functions] = leg_chains(direction, leg);
        let name: Arc<str> = if alone { by_tiers } else { by_functions }.into();
        let name = self.free_name(name);
        self.legs.insert((direction, leg), name.clone());
        // reserved before its functions take names
        self.table.chains.insert(name.to_string(), Chain::default());
        let peer = match direction {
            Direction::Ingress => [Field::IpSaddr, Field::Ip6Saddr],
            Direction::Egress => [Field::IpDaddr, Field::Ip6Daddr],
        };
        let mut rules = Vec::new();
        for family in Family::BOTH {
            rules.extend(self.pod_map(&name, leg, family, peer[index(family)]));
            rules.extend(self.range_rules(&name, leg, family, peer[index(family)]));
        }
        rules.push(drop_rule("peer of no class"));
        self.table.chains.insert(name.to_string(), Chain::regular(rules));
        name
    }

    /// Pod addresses → functions, in a hash map. An address whose function is the one of the range it lies in needs no
    /// element.
    fn pod_map(&mut self, leg_name: &str, leg: &'a Leg, family: Family, peer: Field) -> Option<Rule> {
        let plan = self.plan;
        let mut map = Set::hash([key_type(family)]).to_verdicts();
        for (address, class) in plan.hosts.iter().filter(|(a, _)| Family::of(**a) == family) {
            let Some(function) = leg.functions.get(class) else { continue };
            let surrounding = range_of(&plan.ranges, *address).and_then(|class| leg.functions.get(&class));
            if surrounding != Some(function) {
                let chain = self.function(*function)?;
                map.elements.insert(SetKey::one(*address), goto(&chain));
            }
        }
        // the map is there even if empty: peers come and go without a change of rules
        let name = format!("{leg_name}-pod{}", family.version());
        self.table.sets.insert(name.clone(), map);
        Some(Rule::new([Expr::vmap([peer], name)]))
    }

    /// All other addresses → functions. Interval maps never change once made: their name is their content, and a change
    /// replaces the one rule that refers to them (design: overlapping ranges are not switched inside one transaction).
    fn range_rules(&mut self, leg_name: &str, leg: &'a Leg, family: Family, peer: Field) -> Option<Rule> {
        let plan = self.plan;
        let mut pieces: Vec<(IpAddr, IpAddr, Arc<str>)> = Vec::new();
        for (range, class) in plan.ranges.iter().filter(|(r, _)| r.family() == family) {
            let chain = self.function(*leg.functions.get(class)?)?;
            match pieces.last_mut() {
                Some((_, last, same)) if *same == chain => *last = range.last(),
                _ => pieces.push((range.first(), range.last(), chain)),
            }
        }
        if let [(.., chain)] = pieces.as_slice() {
            let verdict = Expr::Verdict(nft::Verdict::Goto(chain.to_string()));
            return Some(Rule::new([is_family(family), verdict]));
        }
        let name = format!("{leg_name}-net{}-{:016x}", family.version(), digest(&pieces));
        let mut map = Set::interval(key_type(family)).to_verdicts();
        for (first, last, chain) in pieces {
            map.elements.insert(SetKey::Range(Value::from(first), Value::from(last)), goto(&chain));
        }
        self.table.sets.insert(name.clone(), map);
        Some(Rule::new([Expr::vmap([peer], name)]))
    }

    /// The chain of a port function; equal functions share it, also across generations, because its name is its content.
    fn function(&mut self, id: FunctionId) -> Option<Arc<str>> {
        if let Some(name) = self.functions.get(&id) {
            return Some(name.clone());
        }
        let function = self.plan.functions.get(&id)?;
        let chain = Chain::regular(function_rules(function));
        let wanted: Arc<str> = function_chain(function).into();
        let name = match self.table.chains.get(&*wanted) {
            Some(existing) if *existing == chain => wanted,
            Some(_) | None => self.free_name(wanted),
        };
        self.table.chains.insert(name.to_string(), chain);
        self.functions.insert(id, name.clone());
        Some(name)
    }

    /// `wanted`, or a variant where another chain took the name: digests may collide, meanings must not.
    fn free_name(&self, wanted: Arc<str>) -> Arc<str> {
        let mut name = wanted.clone();
        let mut n = 0u32;
        while self.table.chains.contains_key(&*name) {
            n += 1;
            name = format!("{wanted}-{n}").into();
        }
        name
    }
}

/// The two names that a leg's chain can have: by its tiers, or where that is ambiguous by its functions.
pub(crate) fn leg_chains(direction: Direction, leg: &Leg) -> [String; 2] {
    [digest(&leg.tiers), digest(leg)].map(|digest| format!("{}-{digest:016x}", letter(direction)))
}

fn letter(direction: Direction) -> char {
    match direction {
        Direction::Ingress => 'i',
        Direction::Egress => 'e',
    }
}

/// The name of a function's chain: its content.
pub(crate) fn function_chain(function: &PortFunction) -> String {
    format!("f-{:016x}", digest(function))
}

/// The rules of a port function, one or more per row, each with a counter and the cause as comment.
fn function_rules(function: &PortFunction) -> Vec<Rule> {
    let mut rules = Vec::new();
    for row in &function.rows {
        for matches in transport_matches(&row.transport) {
            rules.push(outcome(matches, row.outcome.verdict, &row.outcome.cause.to_string()));
        }
    }
    rules.push(outcome(Vec::new(), function.otherwise.verdict, &function.otherwise.cause.to_string()));
    rules
}

fn outcome(mut exprs: Vec<Expr>, verdict: Verdict, cause: &str) -> Rule {
    exprs.push(Expr::Counter);
    exprs.push(Expr::Verdict(match verdict {
        Verdict::Allow => nft::Verdict::Return,
        Verdict::Deny => nft::Verdict::Drop,
    }));
    Rule::new(exprs).comment(comment(cause))
}

/// The boxes of a transport match, each as expressions of one rule.
fn transport_matches(transport: &TransportMatch) -> Vec<Vec<Expr>> {
    let l4 = |protocol: Protocol| Expr::eq(Field::L4Proto, protocol.number());
    match transport {
        TransportMatch::Any => vec![Vec::new()],
        TransportMatch::Protocol(protocol) => vec![vec![l4(*protocol)]],
        TransportMatch::NotProtocol(protocol) => vec![vec![Expr::ne(Field::L4Proto, protocol.number())]],
        TransportMatch::Ports { protocol, sources, destinations } => {
            let mut boxes = Vec::new();
            for source in ranges(sources) {
                for destination in ranges(destinations) {
                    let mut exprs = vec![l4(*protocol)];
                    exprs.extend(port_match(Field::ThSport, source));
                    exprs.extend(port_match(Field::ThDport, destination));
                    boxes.push(exprs);
                }
            }
            boxes
        }
        TransportMatch::Icmp { protocol, types, codes } => {
            let (family, type_, code) = match *protocol == Protocol::ICMP {
                true => (Family::V4, Field::IcmpType, Field::IcmpCode),
                false => (Family::V6, Field::Icmpv6Type, Field::Icmpv6Code),
            };
            // the other family's ICMP is a protocol without types (semantics 1.1)
            let mut exprs = vec![is_family(family), l4(*protocol)];
            exprs.extend(byte_match(type_, *types));
            exprs.extend(byte_match(code, *codes));
            vec![exprs]
        }
    }
}

fn ranges(set: &PortSet) -> Vec<PortRange> {
    set.iter().collect()
}

/// Nothing for all ports. A port field is read even then by no one: a packet too short to have ports matches rules that
/// name none, as semantics 1.7 has it for truncated headers only where a port is asked for.
fn port_match(field: Field, range: PortRange) -> Option<Expr> {
    (range != PortRange::ALL).then(|| Expr::Range {
        field,
        op: nft::CmpOp::Eq,
        first: Value::U16(range.first()),
        last: Value::U16(range.last()),
    })
}

fn byte_match(field: Field, (first, last): (u8, u8)) -> Option<Expr> {
    ((first, last) != (0, u8::MAX)).then_some(Expr::Range {
        field,
        op: nft::CmpOp::Eq,
        first: Value::U8(first),
        last: Value::U8(last),
    })
}

/// The chains and sets that every table has.
fn add_fixed(table: &mut Table, site: &Site) {
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

/// What a pod may send at all (semantics 1.7). Neighbour discovery comes first: it uses link-local and unspecified sources.
fn source_rules(site: &Site) -> Vec<Rule> {
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
    rules.push(dropped([Expr::eq(Field::L4Proto, IPIP)], "IPIP from a pod"));
    for (family, saddr, daddr) in
        [(Family::V4, Field::IpSaddr, Field::IpDaddr), (Family::V6, Field::Ip6Saddr, Field::Ip6Daddr)]
    {
        if let Some(port) = site.overlay_port {
            let matches = [
                Expr::lookup([daddr], NODES[index(family)]),
                Expr::eq(Field::L4Proto, Protocol::UDP.number()),
                Expr::eq(Field::ThDport, port),
            ];
            rules.push(dropped(matches, "tunnel packet from a pod"));
        }
        rules.push(Rule::new([
            Expr::lookup([Field::IifName, saddr], OWN[index(family)]),
            Expr::Verdict(nft::Verdict::Return),
        ]));
    }
    rules.push(drop_rule("source address that the pod does not own"));
    rules
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
fn live_flow_rules(verdict: nft::Verdict) -> Vec<Rule> {
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
fn mid_stream() -> Expr {
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

fn drop_rule(text: &str) -> Rule {
    dropped([], text)
}

/// Drops and counts what matches.
fn dropped(matches: impl IntoIterator<Item = Expr>, text: &str) -> Rule {
    let end = [Expr::Counter, Expr::Verdict(nft::Verdict::Drop)];
    Rule::new(matches.into_iter().chain(end).collect::<Vec<_>>()).comment(text)
}

fn is_family(family: Family) -> Expr {
    Expr::eq(
        Field::NfProto,
        match family {
            Family::V4 => nft::NFPROTO_IPV4,
            Family::V6 => nft::NFPROTO_IPV6,
        },
    )
}

fn from_pod() -> Expr {
    Expr::NamePrefix { field: Field::IifName, op: nft::CmpOp::Eq, prefix: POD_PREFIX.into() }
}

fn not_from_pod() -> Expr {
    Expr::NamePrefix { field: Field::IifName, op: nft::CmpOp::Ne, prefix: POD_PREFIX.into() }
}

fn to_pod() -> Expr {
    Expr::NamePrefix { field: Field::OifName, op: nft::CmpOp::Eq, prefix: POD_PREFIX.into() }
}

fn jump(chain: &str) -> Expr {
    Expr::Verdict(nft::Verdict::Jump(chain.into()))
}

fn goto(chain: &str) -> SetValue {
    SetValue::Verdict(nft::Verdict::Goto(chain.into()))
}

fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

fn key_type(family: Family) -> KeyType {
    match family {
        Family::V4 => KeyType::Ipv4Addr,
        Family::V6 => KeyType::Ipv6Addr,
    }
}

fn range_of(ranges: &[(AddrRange, sluice_plan::ClassId)], address: IpAddr) -> Option<sluice_plan::ClassId> {
    let at = ranges.partition_point(|(range, _)| range.last() < address);
    ranges.get(at).filter(|(range, _)| range.contains(address)).map(|(_, class)| *class)
}

/// At most 127 bytes (so much `nft` prints), cut at a character; nothing that would end the quotes around it.
fn comment(text: &str) -> String {
    let text = text.replace(|c: char| c == '"' || c.is_control(), "?");
    let mut end = text.len().min(127);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn digest(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
