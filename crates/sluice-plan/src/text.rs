//! The text form of a plan: sorted, one fact per line, made for goldens, `sluice dump` and eyes.
//!
//! [`Plan`]'s `Display` shows the ids that backends and counters use. [`Plan::renumbered`] gives ids that depend on
//! content only, so that two plans that say the same have the same text, whatever history led to them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use sluice_addr::{AddrRange, PortSet};
use sluice_model::{InterfaceMatch, TierDefault, Verdict};

use crate::function::{LogRow, Outcome, PortFunction, Row, TransportMatch};
use crate::host::{HostEndpoint, HostStages, StageLegs};
use crate::plan::{ClassId, Endpoint, FunctionId, Ground, Leg, LegId, Plan, Span, Subject};

impl Plan {
    /// The same plan with ids that depend on content only, and generation 0: classes by their lowest address, functions
    /// by their rows, legs by the first endpoint or host endpoint that has them.
    pub fn renumbered(&self) -> Plan {
        let classes = self.class_order();
        let functions: BTreeMap<FunctionId, FunctionId> = {
            let mut order: Vec<_> = self.functions.iter().collect();
            order.sort_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0)));
            order.into_iter().zip(0..).map(|((id, _), new)| (*id, FunctionId(new))).collect()
        };
        let class = |id: &ClassId| classes.get(id).copied().unwrap_or(*id);
        let function = |id: &FunctionId| functions.get(id).copied().unwrap_or(*id);
        let mut leg_order: BTreeMap<LegId, LegId> = BTreeMap::new();
        let used = self.endpoints.values().flat_map(|e| e.addresses.iter().map(|(_, subject)| subject));
        let of_pods = used.flat_map(|subject| [subject.ingress, subject.egress]);
        let of_hosts = self.host_endpoints.values().flat_map(|host| self.legs_in_order(host, &classes));
        for id in of_pods.chain(of_hosts).chain(self.legs.keys().copied()) {
            let next = LegId(u32::try_from(leg_order.len()).expect("as many as there are 32-bit ids"));
            leg_order.entry(id).or_insert(next);
        }
        let leg = |id: &LegId| leg_order.get(id).copied().unwrap_or(*id);
        let subject = |s: &Subject| Subject { ingress: leg(&s.ingress), egress: leg(&s.egress) };
        let renumbered_leg = |leg: &Leg| Leg {
            tiers: leg.tiers.clone(),
            base: leg.base.each_ref().map(function),
            exceptions: leg.exceptions.iter().map(|(c, f)| (class(c), function(f))).collect(),
        };
        Plan {
            generation: 0,
            revisions: self.revisions.clone(),
            endpoints: self
                .endpoints
                .iter()
                .map(|(key, e)| {
                    let addresses = e.addresses.iter().map(|(a, s)| (*a, subject(s))).collect();
                    (key.clone(), Endpoint { uid: e.uid.clone(), node: e.node.clone(), addresses })
                })
                .collect(),
            host_endpoints: self
                .host_endpoints
                .iter()
                .map(|(name, host)| {
                    let stages = |stages: &HostStages| stages.map(|legs| legs.map(leg, class));
                    let (ingress, egress) = (stages(&host.ingress), stages(&host.egress));
                    (name.clone(), HostEndpoint { ingress, egress, ..host.clone() })
                })
                .collect(),
            legs: self.legs.iter().map(|(id, l)| (leg(id), renumbered_leg(l))).collect(),
            functions: self.functions.iter().map(|(id, f)| (function(id), f.clone())).collect(),
            classes: self.classes.iter().map(|(id, ground)| (class(id), *ground)).collect(),
            hosts: self.hosts.iter().map(|(a, c)| (*a, class(c))).collect(),
            ranges: self
                .ranges
                .iter()
                .map(|(first, span)| (*first, Span { class: class(&span.class), ..*span }))
                .collect(),
            nodes: self.nodes.clone(),
        }
    }

    /// The legs of a host endpoint in an order that depends on no id.
    fn legs_in_order(
        &self,
        host: &HostEndpoint,
        classes: &BTreeMap<ClassId, ClassId>,
    ) -> impl Iterator<Item = LegId> {
        let mut legs: Vec<LegId> = Vec::new();
        for (_, stage) in host.ingress.all().chain(host.egress.all()) {
            legs.extend(stage.base);
            let mut others: Vec<(ClassId, LegId)> = stage
                .exceptions
                .iter()
                .map(|(c, leg)| (classes.get(c).copied().unwrap_or(*c), *leg))
                .collect();
            others.sort();
            legs.extend(others.into_iter().map(|(_, leg)| leg));
        }
        legs.into_iter()
    }

    /// New class ids in the order of each class's lowest address.
    fn class_order(&self) -> BTreeMap<ClassId, ClassId> {
        let mut lowest: BTreeMap<ClassId, IpAddr> = BTreeMap::new();
        let firsts = self.ranges.iter().map(|(first, span)| (*first, span.class));
        for (address, class) in firsts.chain(self.hosts.iter().map(|(a, c)| (*a, *c))) {
            let entry = lowest.entry(class).or_insert(address);
            *entry = (*entry).min(address);
        }
        let mut order: Vec<(IpAddr, bool, ClassId)> = lowest
            .into_iter()
            // a pod's address may be the first of a range of another class
            .map(|(class, address)| (address, self.hosts.get(&address) == Some(&class), class))
            .collect();
        order.sort();
        order.into_iter().zip(0..).map(|((_, _, class), new)| (class, ClassId(new))).collect()
    }
}

impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "class-{}", self.0)
    }
}

impl fmt::Display for LegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leg-{}", self.0)
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.family, if self.pod { " pod" } else { "" })
    }
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function-{}", self.0)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        write!(f, "{verdict}: {}", self.cause)
    }
}

impl fmt::Display for TransportMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportMatch::Any => f.write_str("any"),
            TransportMatch::Protocol(protocol) => write!(f, "{protocol}"),
            TransportMatch::NotProtocol(protocol) => write!(f, "not {protocol}"),
            TransportMatch::Ports { protocol, sources, destinations } => {
                write!(f, "{protocol}")?;
                let mut side = |name: &str, ports: &PortSet| match ports.is_all() {
                    true => Ok(()),
                    false => write!(f, " {name} {ports}"),
                };
                side("from", sources)?;
                side("to", destinations)
            }
            TransportMatch::Icmp { protocol, types, codes } => {
                write!(f, "{protocol}")?;
                let mut part = |name: &str, (first, last): (u8, u8)| match (first, last) {
                    (0, u8::MAX) => Ok(()),
                    (first, last) if first == last => write!(f, " {name} {first}"),
                    (first, last) => write!(f, " {name} {first}-{last}"),
                };
                part("type", *types)?;
                part("code", *codes)
            }
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transport, self.outcome)
    }
}

impl fmt::Display for LogRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.transport)?;
        for (n, protocol) in self.except.iter().enumerate() {
            write!(f, "{}{protocol}", if n == 0 { " but " } else { ", " })?;
        }
        write!(f, " log: {}", self.rule)
    }
}

impl fmt::Display for PortFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.logs {
            writeln!(f, "  {row}")?;
        }
        for row in &self.rows {
            writeln!(f, "  {row}")?;
        }
        writeln!(f, "  otherwise {}", self.otherwise)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "generation {}", self.generation)?;
        for (kind, revision) in &self.revisions {
            writeln!(f, "revision {kind} {revision}")?;
        }
        for (address, node) in &self.nodes {
            writeln!(f, "node {node} {address}")?;
        }
        self.write_classes(f)?;
        for (id, function) in &self.functions {
            writeln!(f, "{id}")?;
            write!(f, "{function}")?;
        }
        for (id, leg) in &self.legs {
            writeln!(f, "{id}")?;
            write_leg(f, leg)?;
        }
        for (key, endpoint) in &self.endpoints {
            write!(f, "endpoint {key}")?;
            if let Some(node) = &endpoint.node {
                write!(f, " on {node}")?;
            }
            for (address, subject) in &endpoint.addresses {
                write!(f, " {address}={}/{}", subject.ingress, subject.egress)?;
            }
            writeln!(f)?;
        }
        for (name, host) in &self.host_endpoints {
            write_host_endpoint(f, name, host)?;
        }
        Ok(())
    }
}

fn write_host_endpoint(f: &mut fmt::Formatter<'_>, name: &str, host: &HostEndpoint) -> fmt::Result {
    write!(f, "host endpoint {name} on {} ", host.node)?;
    match &host.interface {
        InterfaceMatch::Named(interface) => writeln!(f, "interface {interface}")?,
        InterfaceMatch::Every => writeln!(f, "every interface")?,
        InterfaceMatch::ByAddress => {
            let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
            writeln!(f, "interface with {}", addresses.join(" or "))?;
        }
    }
    for (way, stages) in [("in", &host.ingress), ("out", &host.egress)] {
        for (stage, legs) in stages.all() {
            write!(f, "  {stage}-{way}")?;
            write_stage_legs(f, legs)?;
        }
    }
    Ok(())
}

fn write_stage_legs(f: &mut fmt::Formatter<'_>, legs: &StageLegs) -> fmt::Result {
    if legs.base.iter().all(|leg| *leg == legs.base[0]) {
        write!(f, " {}", legs.base[0])?;
    } else {
        for ground in Ground::ALL {
            write!(f, " [{ground}]={}", legs.base[ground.index()])?;
        }
    }
    for (class, leg) in &legs.exceptions {
        write!(f, " {class}={leg}")?;
    }
    writeln!(f)
}

impl Plan {
    fn write_classes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut members: BTreeMap<ClassId, (Vec<AddrRange>, Vec<IpAddr>)> = BTreeMap::new();
        for (range, class) in self.spans() {
            members.entry(class).or_default().0.push(range);
        }
        for (address, class) in &self.hosts {
            members.entry(*class).or_default().1.push(*address);
        }
        for (class, (ranges, hosts)) in &members {
            write!(f, "{class}")?;
            if let Some(ground) = self.classes.get(class) {
                write!(f, " {ground}")?;
            }
            writeln!(f)?;
            for address in hosts {
                writeln!(f, "  pod {address}")?;
            }
            for range in ranges {
                writeln!(f, "  {range}")?;
            }
        }
        Ok(())
    }
}

fn write_leg(f: &mut fmt::Formatter<'_>, leg: &Leg) -> fmt::Result {
    for stage in leg.tiers.iter() {
        let default = match stage.default_action {
            TierDefault::Deny => "deny",
            TierDefault::Pass => "pass",
        };
        writeln!(f, "  tier {} (default {default})", stage.tier)?;
        for policy in &stage.policies {
            writeln!(f, "    {}", policy.object)?;
        }
    }
    let mut users: BTreeMap<FunctionId, Vec<String>> = BTreeMap::new();
    for ground in Ground::ALL {
        users.entry(leg.base[ground.index()]).or_default().push(format!("[{ground}]"));
    }
    for (class, function) in &leg.exceptions {
        users.entry(*function).or_default().push(class.to_string());
    }
    for (function, users) in users {
        writeln!(f, "  {function}: {}", users.join(" "))?;
    }
    Ok(())
}
