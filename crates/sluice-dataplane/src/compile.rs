//! Plan → the table that the kernel should hold.
//!
//! One set of chains and maps per *leg*, not per pod and not per policy: the cost of a packet does not grow with policies.
//! Allow is `return` (back to the base chain, where the other end's leg follows), deny is `drop` (final).

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Family, PortRange, PortSet, Protocol};
use sluice_model::{Direction, Failsafes, Interface, PodKey};
use sluice_netlink::nft::{
    self, Chain, Expr, Field, KeyType, MarkKind, Rule, Set, SetKey, SetValue, Table, Value,
};
use sluice_plan::{
    Cause, ClassId, FunctionId, Ground, Leg, LegId, Outcome, Plan, PortFunction, Subject, TransportMatch,
    Verdict,
};

use crate::fixed::{add_fixed, drop_rule, is_family, jump};
use crate::layout::{EARLY_ALLOWED, EGRESS, INGRESS, OWN, TABLE};
use crate::records::log_rules;

/// What the dataplane must know beside the plan: where pods are attached and what belongs to the overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// The host interface of each attached local pod. A pod without one has no policy in the kernel and no traffic.
    pub interfaces: BTreeMap<PodKey, String>,
    /// Underlay addresses of all nodes, this one included.
    pub nodes: BTreeSet<IpAddr>,
    /// UDP port of the overlay; `None` without tunnel.
    pub overlay_port: Option<u16>,
    /// What host endpoints of the node need; `None` where none are to be programmed.
    pub host: Option<HostSite>,
}

/// What the stages of host endpoints need to know of their node (semantics 3.10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSite {
    /// The node: host endpoints of others are left out.
    pub node: Arc<str>,
    /// The node's interfaces with their addresses, without loopback and pods'.
    pub interfaces: Vec<Interface>,
    /// Ports that no host endpoint closes.
    pub failsafes: Failsafes,
    /// UDP ports by which nodes encrypt between each other; like the overlay's they pass.
    pub wireguard_ports: Vec<u16>,
}

/// The table for a plan.
pub fn compile(plan: &Plan, site: &Site) -> Table {
    let mut table = Table::new(nft::Family::Inet, TABLE);
    table.generation = Some(plan.generation);
    add_fixed(&mut table, site);
    let subjects = plan.subjects();
    let legs_of = |direction| ((Post::Pod, direction), subjects.iter().map(|s| s.leg(direction)).collect());
    let at_post = Direction::BOTH.map(legs_of).into();
    let mut compiler = Compiler { plan, table, functions: BTreeMap::new(), legs: BTreeMap::new(), at_post };
    let mut attached: BTreeMap<IpAddr, Vec<Subject>> = BTreeMap::new();
    for (key, interface) in &site.interfaces {
        for (address, subject) in plan.endpoints.get(key).iter().flat_map(|e| &e.addresses) {
            compiler.own(interface, *address);
            attached.entry(*address).or_default().push(*subject);
        }
    }
    for (address, subjects) in attached {
        compiler.dispatch(address, Direction::Egress, &subjects);
        compiler.dispatch(address, Direction::Ingress, &subjects);
    }
    if let Some(host) = &site.host {
        compiler.host_endpoints(host, site.overlay_port);
    }
    let mut table = compiler.table;
    for chain in table.chains.values_mut() {
        for rule in &mut chain.rules {
            *rule = rule.canonical(nft::Family::Inet);
        }
    }
    table
}

/// Where legs stand: it says how they pass a packet on, and keeps names of one post free of another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Post {
    /// At a pod: what passes goes on to the other end's leg.
    Pod,
    /// At a host endpoint before connection tracking: what a rule allows is not tracked, and skips later stages.
    Untracked,
    /// At a host endpoint before DNAT: what a rule allows skips the interface's later stage.
    PreDnat,
    /// At a host endpoint, normal or forward: what passes goes on.
    Late,
}

impl Post {
    pub(crate) const ALL: [Post; 4] = [Post::Pod, Post::Untracked, Post::PreDnat, Post::Late];

    /// Before the names of its legs' chains.
    fn of_legs(self) -> &'static str {
        match self {
            Post::Pod => "",
            Post::Untracked => "u",
            Post::PreDnat => "p",
            Post::Late => "h",
        }
    }

    /// Before the digest of its functions' chains. Where functions pass in one way, they share chains.
    fn of_functions(self) -> &'static str {
        match self {
            Post::Pod | Post::Late => "f",
            Post::Untracked => "uf",
            Post::PreDnat => "pf",
        }
    }

    /// How a packet goes on that a function allows.
    fn passes(self, cause: &Cause) -> Vec<Expr> {
        let early = || Expr::write_mark(MarkKind::Packet, EARLY_ALLOWED, EARLY_ALLOWED);
        let accept = Expr::Verdict(nft::Verdict::Accept);
        match self {
            Post::Untracked if is_by_rule(cause) => vec![Expr::Notrack, early(), accept],
            Post::PreDnat if is_by_rule(cause) => vec![early(), accept],
            Post::Pod | Post::Late | Post::Untracked | Post::PreDnat => {
                vec![Expr::Verdict(nft::Verdict::Return)]
            }
        }
    }
}

/// Did a rule decide? Else an early stage leaves the packet to the next one.
fn is_by_rule(cause: &Cause) -> bool {
    match cause {
        Cause::Rule(_) => true,
        Cause::TierDefault(_) | Cause::Profile(_) | Cause::NoProfile | Cause::NextStage => false,
    }
}

pub(crate) struct Compiler<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) table: Table,
    functions: BTreeMap<(FunctionId, &'static str), Arc<str>>,
    legs: BTreeMap<(Post, Direction, LegId), Arc<str>>,
    /// The legs that stand at a post in a direction.
    pub(crate) at_post: BTreeMap<(Post, Direction), BTreeSet<LegId>>,
}

impl<'a> Compiler<'a> {
    fn own(&mut self, interface: &str, address: IpAddr) {
        let own = SetKey::Exact(vec![Value::from(interface), Value::from(address)]);
        self.insert(OWN[index(Family::of(address))], own, SetValue::None);
    }

    /// Leads an address to its leg. A contested address has several (semantics 1.9): all are asked in turn, so that the
    /// strictest holds.
    fn dispatch(&mut self, address: IpAddr, direction: Direction, subjects: &[Subject]) {
        let family = index(Family::of(address));
        let map = match direction {
            Direction::Egress => EGRESS[family],
            Direction::Ingress => INGRESS[family],
        };
        let legs: BTreeSet<Arc<str>> =
            subjects.iter().filter_map(|s| self.leg(Post::Pod, direction, s.leg(direction))).collect();
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

    pub(crate) fn insert(&mut self, set: &str, key: SetKey, value: SetValue) {
        if let Some(set) = self.table.sets.get_mut(set) {
            set.elements.insert(key, value);
        }
    }

    /// The chain of a leg. Its name depends on direction and tiers only, so that a policy that is edited or a peer that
    /// comes changes elements, not chains; where two legs have the same tiers (Calico rules that look at the subject's own
    /// side) the functions tell them apart.
    pub(crate) fn leg(&mut self, post: Post, direction: Direction, id: LegId) -> Option<Arc<str>> {
        let plan = self.plan;
        let leg = plan.legs.get(&id)?;
        if let Some(name) = self.legs.get(&(post, direction, id)) {
            return Some(name.clone());
        }
        let twins = self.at_post[&(post, direction)].iter().filter_map(|id| plan.legs.get(id));
        let alone = twins.filter(|twin| twin.tiers == leg.tiers).count() == 1;
        let [by_tiers, by_functions] = leg_chains(post, direction, leg);
        let name: Arc<str> = if alone { by_tiers } else { by_functions }.into();
        let name = self.free_name(name);
        self.legs.insert((post, direction, id), name.clone());
        // reserved before its functions take names
        self.table.chains.insert(name.to_string(), Chain::default());
        let peer = match direction {
            Direction::Ingress => [Field::IpSaddr, Field::Ip6Saddr],
            Direction::Egress => [Field::IpDaddr, Field::Ip6Daddr],
        };
        let function = |class: ClassId| Some(leg.function(class, *plan.classes.get(&class)?));
        let mut rules = Vec::new();
        for family in Family::BOTH {
            let field = peer[index(family)];
            let chain = |compiler: &mut Self, id| compiler.function(post, id);
            rules.extend(self.pod_map(&name, family, field, function, chain));
            let base = self.function(post, leg.base[Ground { family, pod: false }.index()]);
            rules.extend(self.range_rules(&name, family, field, base, function, chain));
        }
        rules.push(drop_rule("peer of no class"));
        self.table.chains.insert(name.to_string(), Chain::regular(rules));
        Some(name)
    }

    /// Pod addresses → chains, in a hash map; `target` says what a class leads to and `chain` its chain. An address with the
    /// target of the range it lies in needs no element.
    pub(crate) fn pod_map<T: PartialEq>(
        &mut self,
        owner: &str,
        family: Family,
        field: Field,
        target: impl Fn(ClassId) -> Option<T>,
        chain: impl Fn(&mut Self, T) -> Option<Arc<str>>,
    ) -> Option<Rule> {
        let plan = self.plan;
        let mut map = Set::hash([key_type(family)]).to_verdicts();
        for (address, class) in plan.hosts.iter().filter(|(a, _)| Family::of(**a) == family) {
            let wanted = target(*class)?;
            let (_, span) = plan.span_of(*address)?;
            if target(span.class)? != wanted {
                let chain = chain(self, wanted)?;
                map.elements.insert(SetKey::one(*address), goto(&chain));
            }
        }
        // the map is there even if empty: peers come and go without a change of rules
        let name = format!("{owner}-pod{}", family.version());
        self.table.sets.insert(name.clone(), map);
        Some(Rule::new([Expr::vmap([field], name)]))
    }

    /// All other addresses → chains: ranges that lead elsewhere than `base` in an interval map, all else to `base`. So an
    /// address that joins a set or leaves it is one element, whatever the set has beside it.
    pub(crate) fn range_rules<T>(
        &mut self,
        owner: &str,
        family: Family,
        field: Field,
        base: Option<Arc<str>>,
        target: impl Fn(ClassId) -> Option<T>,
        chain: impl Fn(&mut Self, T) -> Option<Arc<str>>,
    ) -> Vec<Rule> {
        let plan = self.plan;
        let mut map = Set::interval(key_type(family)).to_verdicts();
        let mut piece: Option<(IpAddr, IpAddr, Arc<str>)> = None;
        let mut put = |(first, last, chain): (IpAddr, IpAddr, Arc<str>)| {
            if Some(&chain) != base.as_ref() {
                map.elements.insert(SetKey::Range(Value::from(first), Value::from(last)), goto(&chain));
            }
        };
        for (range, class) in plan.spans().filter(|(r, _)| r.family() == family) {
            let Some(chain) = target(class).and_then(|target| chain(self, target)) else { return Vec::new() };
            match &mut piece {
                Some((_, last, same)) if *same == chain => *last = range.last(),
                _ => piece.replace((range.first(), range.last(), chain)).into_iter().for_each(&mut put),
            }
        }
        piece.into_iter().for_each(put);
        let mut rules = Vec::new();
        if !map.elements.is_empty() {
            let name = format!("{owner}-net{}", family.version());
            self.table.sets.insert(name.clone(), map);
            rules.push(Rule::new([Expr::vmap([field], name)]));
        }
        rules.extend(base.map(|chain| {
            Rule::new([is_family(family), Expr::Verdict(nft::Verdict::Goto(chain.to_string()))])
        }));
        rules
    }

    /// The chain of a port function; equal functions share it, also across generations, because its name is its content.
    fn function(&mut self, post: Post, id: FunctionId) -> Option<Arc<str>> {
        let kind = post.of_functions();
        if let Some(name) = self.functions.get(&(id, kind)) {
            return Some(name.clone());
        }
        let function = self.plan.functions.get(&id)?;
        let chain = Chain::regular(function_rules(post, function));
        let wanted: Arc<str> = function_chain(post, function).into();
        let name = match self.table.chains.get(&*wanted) {
            Some(existing) if *existing == chain => wanted,
            Some(_) | None => self.free_name(wanted),
        };
        self.table.chains.insert(name.to_string(), chain);
        self.functions.insert((id, kind), name.clone());
        Some(name)
    }

    /// `wanted`, or a variant where another chain took the name: digests may collide, meanings must not.
    pub(crate) fn free_name(&self, wanted: Arc<str>) -> Arc<str> {
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
pub(crate) fn leg_chains(post: Post, direction: Direction, leg: &Leg) -> [String; 2] {
    let (post, direction) = (post.of_legs(), letter(direction));
    [digest(&leg.tiers), digest(leg)].map(|digest| format!("{post}{direction}-{digest:016x}"))
}

fn letter(direction: Direction) -> char {
    match direction {
        Direction::Ingress => 'i',
        Direction::Egress => 'e',
    }
}

/// The name of a function's chain: its content.
pub(crate) fn function_chain(post: Post, function: &PortFunction) -> String {
    let PortFunction { rows, otherwise, logs } = function;
    // nearly no function has Log rules: those without are named by their rows alone
    let digest = if logs.is_empty() { digest(&(rows, otherwise)) } else { digest(&(rows, otherwise, logs)) };
    format!("{}-{digest:016x}", post.of_functions())
}

/// The rules of a port function, one or more per row, each with a counter and the cause as comment; before them those that
/// write records.
fn function_rules(post: Post, function: &PortFunction) -> Vec<Rule> {
    let mut rules: Vec<Rule> = log_rules(function).collect();
    for row in &function.rows {
        for matches in transport_matches(&row.transport) {
            rules.push(outcome(post, matches, &row.outcome));
        }
    }
    rules.push(outcome(post, Vec::new(), &function.otherwise));
    rules
}

fn outcome(post: Post, mut exprs: Vec<Expr>, outcome: &Outcome) -> Rule {
    exprs.push(Expr::Counter);
    exprs.extend(match outcome.verdict {
        Verdict::Allow => post.passes(&outcome.cause),
        Verdict::Deny => vec![Expr::Verdict(nft::Verdict::Drop)],
    });
    Rule::new(exprs).comment(comment(&outcome.cause.to_string()))
}

/// The boxes of a transport match, each as expressions of one rule.
pub(crate) fn transport_matches(transport: &TransportMatch) -> Vec<Vec<Expr>> {
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

pub(crate) fn goto(chain: &str) -> SetValue {
    SetValue::Verdict(nft::Verdict::Goto(chain.into()))
}

pub(crate) fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

pub(crate) fn key_type(family: Family) -> KeyType {
    match family {
        Family::V4 => KeyType::Ipv4Addr,
        Family::V6 => KeyType::Ipv6Addr,
    }
}

/// At most 127 bytes (so much `nft` prints), cut at a character; nothing that would end the quotes around it.
pub(crate) fn comment(text: &str) -> String {
    let text = text.replace(|c: char| c == '"' || c.is_control(), "?");
    let mut end = text.len().min(127);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

pub(crate) fn digest(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
