//! Single questions: every pair of addresses of two ends, judged by the law and put into one answer.

use std::net::IpAddr;

use anyhow::bail;
use sluice_addr::{Family, Flow, Protocol};
use sluice_model::{Circumstances, Decision, Leg, PodKey, World};
use sluice_report::{Answer, EvalAnswer, LegAnswer};

use crate::input;
use crate::resolve::{self, End, Placed};

/// Pairs of places of two pods without addresses that are tried; beyond it the answer is that it is not known.
const MAX_PLACES: usize = 1024;

/// Backends that are explained beside the one that shows the verdict.
const EXPLAINED: usize = 15;

/// What is asked about two ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) protocol: Protocol,
    pub(crate) port: Option<u16>,
    pub(crate) source_port: Option<u16>,
    /// Type and code.
    pub(crate) icmp: (Option<u8>, Option<u8>),
}

impl Asked {
    /// From `80/TCP` and the like.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let (protocol, port) = resolve::protocol_and_port(text)?;
        Ok(Asked { protocol, port, source_port: None, icmp: (None, None) })
    }
}

/// The judgement of all address pairs of two ends.
pub(crate) struct Judged {
    pub(crate) verdict: Answer,
    pub(crate) missing: Vec<String>,
    /// The decision that shows the verdict: the first denied one, or the first.
    pub(crate) decision: Option<(Flow, Decision)>,
    /// Where the destination is a Service: which backends were judged.
    pub(crate) backends: Vec<String>,
    /// The connections that are worth explaining: the one that shows the verdict, then one per backend.
    pub(crate) flows: Vec<Flow>,
}

/// Judges questions about one set of objects.
pub(crate) struct Judge<'p> {
    placed: &'p Placed,
    /// The objects again, to try other addresses of pods that have none yet, and those addresses.
    scratch: Option<(World, Vec<IpAddr>)>,
}

impl<'p> Judge<'p> {
    pub(crate) fn new(placed: &'p Placed) -> Self {
        let regions = || Family::BOTH.into_iter().flat_map(|family| placed.regions(family)).collect();
        Judge { placed, scratch: placed.is_split().then(|| (placed.world.clone(), regions())) }
    }

    /// Judges every pair of addresses of one family. One denied pair makes the answer Denied.
    pub(crate) fn judge(&mut self, from: &End, to: &End, asked: &Asked) -> anyhow::Result<Judged> {
        let (targets, backends) = targets(&self.placed.world, to, asked)?;
        let circumstances = self.placed.circumstances(to.service.is_some());
        let mut shown: Option<(Flow, Decision)> = None;
        let (mut missing, mut flows) = (Vec::new(), Vec::new());
        for source in &from.addresses {
            for (destination, port) in targets.iter().filter(|(d, _)| Family::of(*d) == Family::of(*source)) {
                let family = Family::of(*source);
                let transport =
                    resolve::transport(family, asked.protocol, *port, asked.source_port, asked.icmp)?;
                let flow = Flow { source: *source, destination: *destination, transport };
                let decision = sluice_model::decide_in(&self.placed.world, &flow, &circumstances);
                missing.extend(self.hangs_on(from, to, &flow, &decision, &circumstances));
                missing.extend(decision.missing.iter().map(ToString::to_string));
                flows.push(flow);
                if shown.as_ref().is_none_or(|(_, d)| d.is_allowed() && !decision.is_allowed()) {
                    shown = Some((flow, decision));
                }
            }
        }
        missing.sort();
        missing.dedup();
        let Some((flow, decision)) = shown else {
            if to.service.is_some() && targets.is_empty() {
                missing.push(format!("{} has no backend", to.name));
                return Ok(Judged { verdict: Answer::Undecided, missing, decision: None, backends, flows });
            }
            bail!("{} and {} have no address of the same family", from.name, to.name);
        };
        let verdict = match (missing.is_empty(), decision.is_allowed()) {
            (false, _) => Answer::Undecided,
            (true, true) => Answer::Allow,
            (true, false) => Answer::Deny,
        };
        // without a Service the others say nothing new
        flows.retain(|other| *other != flow && to.service.is_some());
        flows.truncate(EXPLAINED);
        flows.insert(0, flow);
        Ok(Judged { verdict, missing, decision: Some((flow, decision)), backends, flows })
    }

    /// Does the verdict change with the addresses that pods without address may get (semantics 1.11)?
    fn hangs_on(
        &mut self,
        from: &End,
        to: &End,
        flow: &Flow,
        decision: &Decision,
        circumstances: &Circumstances,
    ) -> Option<String> {
        let placed = self.placed;
        let (scratch, regions) = self.scratch.as_mut()?;
        let assumed = |end: &End, address: IpAddr| -> Option<PodKey> {
            let of =
                |key: &&PodKey| placed.world.pods.get(*key).is_some_and(|p| p.addresses.contains(&address));
            end.pods.iter().filter(|key| placed.assumed.contains(key)).find(of).cloned()
        };
        let (source, target) = (assumed(from, flow.source), assumed(to, flow.destination));
        if (source.is_none() && target.is_none()) || source == target {
            return None;
        }
        let same = regions.iter().copied().filter(|a| Family::of(*a) == flow.family());
        let same: Vec<IpAddr> = same.collect();
        let places = |pod: &Option<PodKey>, own: IpAddr| match pod {
            Some(_) => [&[own], same.as_slice()].concat(),
            None => vec![own],
        };
        let (sources, targets) = (places(&source, flow.source), places(&target, flow.destination));
        let names: Vec<String> = [&source, &target].into_iter().flatten().map(ToString::to_string).collect();
        let unknown =
            format!("the address of {}, because policies name parts of the pod range", names.join(" and "));
        if sources.len() * targets.len() > MAX_PLACES {
            return Some(unknown);
        }
        let mut differs = false;
        for (at, to) in sources.iter().flat_map(|s| targets.iter().map(move |t| (*s, *t))) {
            if at == to {
                continue;
            }
            for (pod, old, new) in [(&source, flow.source, at), (&target, flow.destination, to)] {
                move_pod(scratch, pod.as_ref(), old, new);
            }
            let moved = Flow { source: at, destination: to, transport: flow.transport };
            differs |= sluice_model::decide_in(scratch, &moved, circumstances).verdict != decision.verdict;
            for (pod, old, new) in [(&source, at, flow.source), (&target, to, flow.destination)] {
                move_pod(scratch, pod.as_ref(), old, new);
            }
        }
        differs.then_some(unknown)
    }
}

fn move_pod(world: &mut World, pod: Option<&PodKey>, old: IpAddr, new: IpAddr) {
    if let Some(pod) = pod.and_then(|key| world.pods.get_mut(key)) {
        pod.addresses.iter_mut().filter(|a| **a == old).for_each(|a| *a = new);
    }
}

/// Where connections to an end arrive: its addresses, or the backends of the Service that it is.
type Targets = Vec<(IpAddr, Option<u16>)>;

fn targets(world: &World, to: &End, asked: &Asked) -> anyhow::Result<(Targets, Vec<String>)> {
    let Some((namespace, name)) = &to.service else {
        return Ok((to.addresses.iter().map(|a| (*a, asked.port)).collect(), Vec::new()));
    };
    let key = (namespace.as_str().into(), name.as_str().into());
    let fronts = world.services.get(&key).map(|s| s.ports.as_slice()).unwrap_or_default();
    let is_asked = |protocol: Protocol, port: u16| protocol == asked.protocol && Some(port) == asked.port;
    if !fronts.iter().any(|p| is_asked(p.protocol, p.port)) {
        let known: Vec<String> = fronts.iter().map(|p| format!("{}/{}", p.port, p.protocol)).collect();
        let asked = asked.port.map_or(asked.protocol.to_string(), |p| format!("{p}/{}", asked.protocol));
        let known = if known.is_empty() { "no port".into() } else { known.join(", ") };
        bail!("Service {namespace}/{name} has no port {asked}; it has {known}");
    }
    let backends = input::backends(world, namespace, name, |protocol, port, _| is_asked(protocol, port));
    let shown = backends.iter().map(|b| {
        let port = b.port.unwrap_or(b.front);
        let owner = world.pods.values().find(|p| p.live_addresses().contains(&b.address));
        let who = owner.map(|p| format!(" ({})", p.key)).unwrap_or_default();
        format!("Service {namespace}/{name} port {}: backend {} port {port}{who}", b.front, b.address)
    });
    let shown = shown.collect();
    Ok((backends.into_iter().map(|b| (b.address, b.port.or(asked.port))).collect(), shown))
}

/// The answer as data.
pub(crate) fn answer(id: Option<serde_json::Value>, judged: &Judged) -> EvalAnswer {
    let decision = judged.decision.as_ref().map(|(_, d)| d);
    EvalAnswer {
        id,
        verdict: judged.verdict,
        egress: decision.and_then(|d| d.egress.as_ref()).map(leg_answer),
        ingress: decision.and_then(|d| d.ingress.as_ref()).map(leg_answer),
        missing: judged.missing.clone(),
    }
}

pub(crate) fn leg_answer(leg: &Leg) -> LegAnswer {
    let rule = leg.deciding_rule();
    LegAnswer {
        verdict: match leg.verdict {
            sluice_model::Verdict::Allow => Answer::Allow,
            sluice_model::Verdict::Deny => Answer::Deny,
        },
        reason: leg.to_string(),
        rule: rule.map(|r| format!("{} {}", r.object, r.path)),
        position: rule.and_then(|r| r.position.as_ref()).map(ToString::to_string),
    }
}
