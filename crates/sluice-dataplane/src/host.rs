//! Host endpoints in the table: which stages a packet meets at which interface, and what passes them (semantics 3.10).
//!
//! A node without host endpoints has none of these chains.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_addr::{Family, Protocol};
use sluice_model::{Direction, Failsafe, Interface, InterfaceMatch, Stage};
use sluice_netlink::nft::{
    self, Chain, ChainKind, Expr, Field, Hook, HookPoint, KeyType, MarkKind, Policy, Rule, Set, SetKey,
    SetValue, Value, ct_state, ct_status,
};
use sluice_plan::{ClassId, Ground, HostEndpoint, LegId, Plan, StageLegs};

use crate::compile::{Compiler, HostSite, Post, digest, goto, index, key_type};
use crate::fixed::{
    drop_rule, dropped, from_pod, is_family, jump, live_flow_rules, mid_stream, not_from_pod, to_pod,
};
use crate::layout::*;

/// Neighbour discovery and multicast listener reports of a link: types, first and last.
const OF_THE_LINK: [(u8, u8); 2] = [(130, 136), (143, 143)];

/// A host endpoint with its name.
type Named<'a> = (&'a Arc<str>, &'a HostEndpoint);

/// The host endpoints that are active on a node.
pub(crate) struct Active<'a> {
    /// Interfaces that have one of their own.
    by_name: Vec<(Arc<str>, Named<'a>)>,
    /// The one of every other interface, pods' included.
    every: Option<Named<'a>>,
}

impl<'a> Active<'a> {
    /// A host endpoint that names an interface stands there before the interface does.
    pub(crate) fn on(plan: &'a Plan, host: &HostSite) -> Self {
        let here = plan.host_endpoints.values().filter(|endpoint| endpoint.node == host.node);
        let asked_for = here.filter_map(|endpoint| match &endpoint.interface {
            InterfaceMatch::Named(name) => Some(name),
            InterfaceMatch::ByAddress | InterfaceMatch::Every => None,
        });
        let present = host.interfaces.iter().map(|interface| &interface.name);
        let names: BTreeSet<&Arc<str>> = asked_for.chain(present).filter(|name| is_of_host(name)).collect();
        let by_name = names.into_iter().filter_map(|name| {
            let known = host.interfaces.iter().find(|interface| interface.name == *name).cloned();
            let interface = known.unwrap_or_else(|| Interface { name: name.clone(), addresses: Vec::new() });
            let found = plan.host_endpoint_on(&host.node, &interface)?;
            (found.1.interface != InterfaceMatch::Every).then(|| (name.clone(), found))
        });
        Active { by_name: by_name.collect(), every: plan.host_endpoint_on_every(&host.node) }
    }

    fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.every.is_none()
    }

    /// Each once.
    pub(crate) fn endpoints(&self) -> Vec<Named<'a>> {
        let mut all: Vec<Named<'a>> =
            self.by_name.iter().map(|(_, found)| *found).chain(self.every).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        all.dedup_by_key(|(name, _)| *name);
        all
    }
}

/// Host endpoints stand at no loopback, and at pods' interfaces only those for every interface do. A name that no interface
/// can have is nobody's.
fn is_of_host(name: &str) -> bool {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '"' | '*' | '\\');
    let can_be = (1..=15).contains(&name.len()) && !name.contains(is_bad);
    can_be && name != "lo" && !name.starts_with(POD_PREFIX)
}

/// A stage in one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    stage: Stage,
    direction: Direction,
}

impl Spot {
    const UNTRACKED_IN: Spot = Spot { stage: Stage::Untracked, direction: Direction::Ingress };
    const UNTRACKED_OUT: Spot = Spot { stage: Stage::Untracked, direction: Direction::Egress };
    const PREDNAT_IN: Spot = Spot { stage: Stage::PreDnat, direction: Direction::Ingress };
    const NORMAL_IN: Spot = Spot { stage: Stage::Normal, direction: Direction::Ingress };
    const NORMAL_OUT: Spot = Spot { stage: Stage::Normal, direction: Direction::Egress };
    const FORWARD_IN: Spot = Spot { stage: Stage::Forward, direction: Direction::Ingress };
    const FORWARD_OUT: Spot = Spot { stage: Stage::Forward, direction: Direction::Egress };
    pub(crate) const ALL: [Spot; 7] = [
        Spot::UNTRACKED_IN,
        Spot::UNTRACKED_OUT,
        Spot::PREDNAT_IN,
        Spot::NORMAL_IN,
        Spot::NORMAL_OUT,
        Spot::FORWARD_IN,
        Spot::FORWARD_OUT,
    ];

    /// The chain that leads an interface to its stage. The map behind it has the same name.
    fn name(self) -> String {
        let stage = match self.stage {
            Stage::Untracked => "untracked",
            Stage::PreDnat => "prednat",
            Stage::Normal => "normal",
            Stage::Forward => "forward",
        };
        let direction = match self.direction {
            Direction::Ingress => "in",
            Direction::Egress => "out",
        };
        format!("{stage}-{direction}")
    }

    /// The chain of a host endpoint's stage.
    pub(crate) fn chain_of(self, endpoint: &str) -> String {
        format!("{}-{:016x}", self.name(), digest(endpoint))
    }

    pub(crate) fn post(self) -> Post {
        match self.stage {
            Stage::Untracked => Post::Untracked,
            Stage::PreDnat => Post::PreDnat,
            Stage::Normal | Stage::Forward => Post::Late,
        }
    }

    pub(crate) fn direction(self) -> Direction {
        self.direction
    }

    pub(crate) fn legs(self, endpoint: &HostEndpoint) -> Option<&StageLegs> {
        endpoint.stages(self.direction).of(self.stage)
    }

    fn interface(self) -> Field {
        match self.direction {
            Direction::Ingress => Field::IifName,
            Direction::Egress => Field::OifName,
        }
    }

    /// What leads to the host endpoint of every interface: the rows of the path table that name `*` (semantics 3.10).
    fn exceptions(self) -> Vec<Rule> {
        let back = || Expr::Verdict(nft::Verdict::Return);
        let mut rules = vec![Rule::new([Expr::eq(self.interface(), Value::from("lo")), back()])];
        match (self.stage, self.direction) {
            (Stage::Untracked | Stage::Normal, Direction::Ingress) => {
                rules.push(Rule::new([from_pod(), back()]));
            }
            (Stage::Untracked | Stage::PreDnat | Stage::Normal, Direction::Egress) => {
                rules.push(Rule::new([to_pod(), back()]));
            }
            // from outside to a pod here
            (Stage::Forward, Direction::Egress) => rules.push(Rule::new([not_from_pod(), to_pod(), back()])),
            (Stage::PreDnat | Stage::Forward, Direction::Ingress) => {}
        }
        rules
    }
}

impl<'a> Compiler<'a> {
    /// Everything that host endpoints of the node add to the table.
    pub(crate) fn host_endpoints(&mut self, host: &HostSite, overlay_port: Option<u16>) {
        let active = Active::on(self.plan, host);
        if active.is_empty() {
            return;
        }
        for spot in Spot::ALL {
            let legs = active.endpoints().into_iter().filter_map(|(_, endpoint)| spot.legs(endpoint));
            let legs: Vec<LegId> = legs.flat_map(StageLegs::legs).collect();
            self.at_post.entry((spot.post(), spot.direction)).or_default().extend(legs);
        }
        let standing: Vec<Spot> = Spot::ALL.into_iter().filter(|spot| self.spot(*spot, &active)).collect();
        let bases = Bases { standing, host };
        self.passing_sets(host, overlay_port);
        for (name, chain) in bases.chains() {
            self.table.chains.insert(name.to_owned(), chain);
        }
        if let Some(chain) = self.table.chains.get_mut(FORWARD) {
            bases.forward(&mut chain.rules);
        }
        if bases.has(Spot::UNTRACKED_IN)
            && let Some(chain) = self.table.chains.get_mut(SANE)
        {
            // such a segment revives nothing: there is no flow (semantics 1.10)
            let untracked = [Expr::ct_state(ct_state::UNTRACKED), early(true)];
            let back = Rule::new(
                untracked.into_iter().chain([Expr::Verdict(nft::Verdict::Return)]).collect::<Vec<_>>(),
            );
            let last = chain.rules.len().saturating_sub(1);
            chain.rules.insert(last, back);
        }
    }

    /// The chains of a stage in one direction; `false` if no host endpoint of the node has it.
    fn spot(&mut self, spot: Spot, active: &Active<'a>) -> bool {
        let mut chains = Vec::new();
        for (name, endpoint) in active.endpoints() {
            if let Some(legs) = spot.legs(endpoint) {
                chains.push((name.clone(), self.stage(spot, name, legs)));
            }
        }
        if chains.is_empty() {
            return false;
        }
        let chain_of = |name: &Arc<str>| chains.iter().find(|(of, _)| of == name).map(|(_, chain)| chain);
        let of_every = active.every.and_then(|(name, _)| Some((name, chain_of(name)?)));
        let mut map = Set::hash([KeyType::IfName]).to_verdicts();
        for (interface, (name, _)) in &active.by_name {
            let verdict = match chain_of(name) {
                Some(chain) => goto(chain),
                // it must not come to the one of every interface
                None if of_every.is_some() => SetValue::Verdict(nft::Verdict::Return),
                None => continue,
            };
            map.elements.insert(SetKey::Exact(vec![Value::from(&**interface)]), verdict);
        }
        self.table.sets.insert(spot.name(), map);
        let mut rules = vec![Rule::new([Expr::vmap([spot.interface()], spot.name())])];
        if let Some((_, chain)) = of_every {
            rules.extend(spot.exceptions());
            rules.push(Rule::new([Expr::Verdict(nft::Verdict::Goto(chain.clone()))]));
        }
        self.table.chains.insert(spot.name(), Chain::regular(rules));
        true
    }

    /// The chain of one host endpoint's stage: by the address on its own side to a leg.
    fn stage(&mut self, spot: Spot, endpoint: &str, legs: &StageLegs) -> String {
        let plan = self.plan;
        let name = self.free_name(spot.chain_of(endpoint).into());
        self.table.chains.insert(name.to_string(), Chain::default());
        let (post, direction) = (spot.post(), spot.direction);
        let own = match direction {
            Direction::Ingress => [Field::IpDaddr, Field::Ip6Daddr],
            Direction::Egress => [Field::IpSaddr, Field::Ip6Saddr],
        };
        let leg_of = |class: ClassId| Some(legs.leg(class, *plan.classes.get(&class)?));
        let chain_of = |compiler: &mut Self, leg| compiler.leg(post, direction, leg);
        let mut rules = Vec::new();
        if post == Post::Late {
            // A mid-stream segment never revives a flow that was cut (semantics 1.10); what is not tracked has none.
            let no_flow = ct_state::ESTABLISHED | ct_state::UNTRACKED;
            let no_flow = Expr::masked(Field::CtState, no_flow, 0);
            rules.push(dropped([no_flow, mid_stream()], "TCP segment of no live flow"));
        }
        for family in Family::BOTH {
            let field = own[index(family)];
            match only_leg(plan, legs, family) {
                Some(leg) => rules.extend(self.leg(post, direction, leg).map(|chain| {
                    let verdict = Expr::Verdict(nft::Verdict::Goto(chain.to_string()));
                    Rule::new([is_family(family), verdict])
                })),
                None => {
                    rules.extend(self.pod_map(&name, family, field, leg_of, chain_of));
                    let base = legs.base[Ground { family, pod: false }.index()];
                    let base = self.leg(post, direction, base);
                    rules.extend(self.range_rules(&name, family, field, base, leg_of, chain_of));
                }
            }
        }
        rules.push(drop_rule("own side of no class"));
        self.table.chains.insert(name.to_string(), Chain::regular(rules));
        name.to_string()
    }

    /// What passes host endpoints whatever policies say: failsafes, and tunnels between nodes (semantics 1.5).
    fn passing_sets(&mut self, host: &HostSite, overlay_port: Option<u16>) {
        for (name, failsafes) in FAILSAFES.iter().zip([&host.failsafes.inbound, &host.failsafes.outbound]) {
            let mut set = Set::hash([KeyType::InetProto, KeyType::InetService]);
            for Failsafe { protocol, port, .. } in failsafes.iter().filter(|f| f.net.is_none()) {
                let key = vec![Value::U8(protocol.number()), Value::U16(*port)];
                set.elements.insert(SetKey::Exact(key), SetValue::None);
            }
            self.table.sets.insert((*name).to_owned(), set);
        }
        for family in Family::BOTH {
            let mut ends = Set::hash([key_type(family)]);
            let is_end = |address: &&std::net::IpAddr| {
                Family::of(**address) == family && !self.plan.hosts.contains_key(*address)
            };
            for address in self.plan.nodes.keys().filter(is_end) {
                ends.elements.insert(SetKey::one(*address), SetValue::None);
            }
            self.table.sets.insert(TUNNEL_ENDS[index(family)].to_owned(), ends);
        }
        let mut ports = Set::hash([KeyType::InetService]);
        for port in overlay_port.iter().chain(&host.wireguard_ports) {
            ports.elements.insert(SetKey::one(*port), SetValue::None);
        }
        self.table.sets.insert(TUNNEL_PORTS.to_owned(), ports);
    }
}

/// The leg of every address of a family, if there is one.
fn only_leg(plan: &Plan, legs: &StageLegs, family: Family) -> Option<LegId> {
    let grounds = Ground::ALL.into_iter().filter(|ground| ground.family == family);
    let bases: BTreeSet<LegId> = grounds.map(|ground| legs.base[ground.index()]).collect();
    let is_of_family = |class: &ClassId| plan.classes.get(class).is_none_or(|ground| ground.family == family);
    let is_plain = !legs.exceptions.keys().any(is_of_family);
    (is_plain && bases.len() == 1).then(|| bases.first().copied()).flatten()
}

/// The base chains of a node with host endpoints.
struct Bases<'h> {
    /// The stages that some host endpoint of the node has.
    standing: Vec<Spot>,
    host: &'h HostSite,
}

impl Bases<'_> {
    fn has(&self, spot: Spot) -> bool {
        self.standing.contains(&spot)
    }

    /// Can an early stage allow what comes in, so that a later one is skipped?
    fn allows_early(&self) -> bool {
        self.has(Spot::UNTRACKED_IN) || self.has(Spot::PREDNAT_IN)
    }

    fn chains(&self) -> Vec<(&'static str, Chain)> {
        let base = |hook, priority, rules| {
            Chain::base(Hook { hook, kind: ChainKind::Filter, priority, policy: Policy::Accept }, rules)
        };
        let mut chains = Vec::new();
        if self.allows_early() {
            chains.push((HOST_FIRST_IN, base(HookPoint::Prerouting, GUARD_PRIORITY, self.first_in())));
            chains.push((HOST_EARLY, base(HookPoint::Prerouting, EARLY_PRIORITY, self.early())));
        }
        if self.has(Spot::UNTRACKED_OUT) {
            chains.push((HOST_FIRST_OUT, base(HookPoint::Output, GUARD_PRIORITY, self.first_out())));
        }
        chains.push((HOST_INPUT, base(HookPoint::Input, FILTER_PRIORITY, self.input())));
        chains.push((HOST_OUTPUT, base(HookPoint::Output, FILTER_PRIORITY, self.output())));
        chains.push((HOST_LEAVING, base(HookPoint::Postrouting, GUARD_PRIORITY, self.leaving())));
        chains
    }

    /// Before connection tracking. Marks of a tunnel's outer packet are none of the inner one's.
    fn first_in(&self) -> Vec<Rule> {
        let mut rules = vec![clear(EARLY_ALLOWED)];
        if self.has(Spot::UNTRACKED_IN) {
            rules.extend(of_the_link());
            rules.extend(tunnels());
            rules.extend(self.failsafes(Direction::Ingress, Way::There, back));
            // what could answer the node's own connection to a failsafe is looked at again once it is known whether it does
            rules.extend(self.failsafes(Direction::Egress, Way::Back, back));
            rules.push(Rule::new([jump(&Spot::UNTRACKED_IN.name())]));
        }
        rules
    }

    fn early(&self) -> Vec<Rule> {
        let mut rules = live_flow_rules(nft::Verdict::Return);
        rules.push(Rule::new([early(true), back()]));
        rules.extend(of_the_link());
        rules.extend(tunnels());
        rules.extend(self.failsafes(Direction::Ingress, Way::There, back));
        if self.has(Spot::UNTRACKED_IN) {
            let again = || jump(&Spot::UNTRACKED_IN.name());
            rules.extend(self.failsafes(Direction::Egress, Way::Back, again));
        }
        if self.has(Spot::PREDNAT_IN) {
            rules.push(Rule::new([jump(&Spot::PREDNAT_IN.name())]));
        }
        rules
    }

    fn first_out(&self) -> Vec<Rule> {
        let mut rules = vec![clear(EARLY_ALLOWED)];
        rules.extend(of_the_link());
        rules.extend(tunnels());
        rules.extend(self.failsafes(Direction::Egress, Way::There, back));
        rules.extend(self.failsafes(Direction::Ingress, Way::Back, back));
        rules.push(Rule::new([jump(&Spot::UNTRACKED_OUT.name())]));
        rules
    }

    fn input(&self) -> Vec<Rule> {
        let mut rules = live_flow_rules(nft::Verdict::Return);
        if self.allows_early() {
            rules.push(Rule::new([early(true), back()]));
        }
        rules.extend(of_the_link());
        rules.extend(tunnels());
        rules.extend(self.failsafes(Direction::Ingress, Way::There, back));
        if self.has(Spot::NORMAL_IN) {
            rules.push(Rule::new([jump(&Spot::NORMAL_IN.name())]));
        }
        rules
    }

    fn output(&self) -> Vec<Rule> {
        let mut rules = live_flow_rules(nft::Verdict::Return);
        if self.has(Spot::UNTRACKED_OUT) {
            rules.push(Rule::new([early(true), back()]));
        }
        rules.push(Rule::new([
            Expr::ct_status(ct_status::DNAT),
            Expr::write_mark(MarkKind::Packet, TRANSLATED_HERE, TRANSLATED_HERE),
            back(),
        ]));
        rules.extend(of_the_link());
        rules.extend(tunnels());
        rules.extend(self.failsafes(Direction::Egress, Way::There, back));
        if self.has(Spot::UNTRACKED_OUT) {
            let again = || jump(&Spot::UNTRACKED_OUT.name());
            rules.extend(self.failsafes(Direction::Ingress, Way::Back, again));
        }
        if self.has(Spot::NORMAL_OUT) {
            rules.push(Rule::new([jump(&Spot::NORMAL_OUT.name())]));
        }
        rules
    }

    /// At output the kernel still names the interface of the untranslated destination.
    fn leaving(&self) -> Vec<Rule> {
        let mut rules = vec![Rule::new([Expr::masked(Field::Mark, TRANSLATED_HERE, 0), back()])];
        rules.push(clear(TRANSLATED_HERE));
        rules.extend(self.failsafes(Direction::Egress, Way::There, back));
        for spot in [Spot::UNTRACKED_OUT, Spot::NORMAL_OUT] {
            if self.has(spot) {
                rules.push(Rule::new([jump(&spot.name())]));
            }
        }
        rules
    }

    /// The stages of forwarded traffic, among the rules of the chain that the pods' legs have.
    fn forward(&self, rules: &mut Vec<Rule>) {
        if self.has(Spot::FORWARD_IN) {
            let into = jump(&Spot::FORWARD_IN.name());
            let rule = if self.allows_early() { Rule::new([early(false), into]) } else { Rule::new([into]) };
            let legs = rules.iter().position(|rule| rule.exprs.contains(&jump(FROM_POD)));
            rules.insert(legs.unwrap_or(rules.len()), rule);
        }
        if self.has(Spot::FORWARD_OUT) {
            rules.push(Rule::new([jump(&Spot::FORWARD_OUT.name())]));
        }
    }

    /// One rule for all failsafes of a direction, and one for each that has a CIDR.
    fn failsafes(&self, direction: Direction, way: Way, end: impl Fn() -> Expr) -> Vec<Rule> {
        let (set, list) = match direction {
            Direction::Ingress => (FAILSAFES[0], &self.host.failsafes.inbound),
            Direction::Egress => (FAILSAFES[1], &self.host.failsafes.outbound),
        };
        let port = match way {
            Way::There => Field::ThDport,
            Way::Back => Field::ThSport,
        };
        let mut rules = vec![Rule::new([Expr::lookup([Field::L4Proto, port], set), end()])];
        for Failsafe { protocol, port: number, net } in list {
            let Some(net) = net else { continue };
            let is_source = (direction == Direction::Ingress) == (way == Way::There);
            let field = match (net.family(), is_source) {
                (Family::V4, true) => Field::IpSaddr,
                (Family::V4, false) => Field::IpDaddr,
                (Family::V6, true) => Field::Ip6Saddr,
                (Family::V6, false) => Field::Ip6Daddr,
            };
            let mut exprs = vec![is_family(net.family())];
            if net.prefix() > 0 {
                exprs.push(Expr::Prefix { field, op: nft::CmpOp::Eq, addr: net.base(), len: net.prefix() });
            }
            exprs.push(Expr::eq(Field::L4Proto, protocol.number()));
            exprs.push(Expr::eq(port, *number));
            exprs.push(end());
            rules.push(Rule::new(exprs));
        }
        rules
    }
}

/// A packet on its way to a port, or one that could answer it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

fn back() -> Expr {
    Expr::Verdict(nft::Verdict::Return)
}

/// Did an early stage allow the packet?
fn early(did: bool) -> Expr {
    Expr::masked(Field::Mark, EARLY_ALLOWED, if did { EARLY_ALLOWED } else { 0 })
}

fn clear(bit: u32) -> Rule {
    Rule::new([Expr::masked(Field::Mark, bit, bit), Expr::write_mark(MarkKind::Packet, bit, 0)])
}

fn of_the_link() -> Vec<Rule> {
    let rule = |(first, last): (u8, u8)| {
        let types = Expr::Range {
            field: Field::Icmpv6Type,
            op: nft::CmpOp::Eq,
            first: Value::U8(first),
            last: Value::U8(last),
        };
        Rule::new([is_family(Family::V6), types, back()])
    };
    OF_THE_LINK.map(rule).into()
}

fn tunnels() -> Vec<Rule> {
    let mut rules = Vec::new();
    for (family, ends) in
        [(Family::V4, [Field::IpSaddr, Field::IpDaddr]), (Family::V6, [Field::Ip6Saddr, Field::Ip6Daddr])]
    {
        let between = || ends.map(|field| Expr::lookup([field], TUNNEL_ENDS[index(family)]));
        let udp =
            [Expr::eq(Field::L4Proto, Protocol::UDP.number()), Expr::lookup([Field::ThDport], TUNNEL_PORTS)];
        rules.push(Rule::new(udp.into_iter().chain(between()).chain([back()]).collect::<Vec<_>>()));
        let ipip = [Expr::eq(Field::L4Proto, IPIP)];
        rules.push(Rule::new(ipip.into_iter().chain(between()).chain([back()]).collect::<Vec<_>>()));
    }
    rules
}
