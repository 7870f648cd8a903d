//! `sluice demo`: the reference scenario in a lab, every claim judged three ways in five situations.

pub(crate) mod cells;
mod live;
pub(crate) mod programming;
mod render;
mod scenario;
mod truths;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::Context;
use sluice_addr::{Family, Flow, Protocol, Transport};
use sluice_analysis::{Place, Sample, Snapshot, judge_claim, judge_samples, samples};
use sluice_model::World;
use sluice_report::{Claim, ClaimReport, ClaimState, Observation, Probe, Truths};

use crate::args::{Demo, Output};
use crate::exit::Exit;
use crate::progress;
use crate::render::data::{self, Form};
use crate::stage::Stage;

use self::live::LiveConnection;
use self::programming::Programming;
use self::render::Outcome;
use self::scenario::{CATALOGUE, CLAIMS, PODS, SURROUNDINGS, VARIANTS};
use self::truths::{KnownNode, Programmed};

/// Runs the demo.
pub(crate) async fn run(command: Demo) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let stop = crate::up::interrupted();
    let outcome = tokio::select! {
        outcome = play(&command, began) => outcome,
        exit = stop => {
            eprintln!("interrupted; everything of the lab is gone");
            return Ok(exit);
        }
    };
    let (outcome, stage) = outcome?;
    match command.output {
        Output::Json => data::print(Form::Json, &outcome.json()),
        Output::Yaml => data::print(Form::Yaml, &outcome.json()),
        Output::Md => print!("{}", outcome.markdown()),
        Output::Csv => print!("{}", outcome.comma_separated()),
        Output::Table => print!("{}", outcome.table(std::io::stdout().is_terminal())),
    }
    if command.keep {
        crate::up::keep(stage).await?;
    } else {
        stage.end().await;
    }
    Ok(if outcome.is_as_expected() { Exit::Yes } else { Exit::No })
}

async fn play(command: &Demo, began: Instant) -> anyhow::Result<(Outcome, Stage)> {
    progress::say("starting two nodes, the API, the agents and a host outside");
    let stage = Stage::start(2).await?;
    let programming = Programming::follow(&stage).await?;
    for text in [PODS, SURROUNDINGS] {
        stage.apply(text).await?;
    }
    progress::say("waiting for the pods");
    programming.pods_ready(5).await?;
    let started = began.elapsed();
    let claims = claims()?;
    let mut reports = Vec::new();
    let mut shown = Vec::new();
    let mut in_force: Vec<&'static str> = Vec::new();
    let mut live: Option<LiveConnection> = None;
    for (index, variant) in VARIANTS.iter().enumerate() {
        progress::say(&format!("situation {}: {}", index + 1, variant.name));
        programming.switch(&stage, &in_force, variant.policies).await?;
        in_force = variant.policies.to_vec();
        if command.sabotage && index == 1 {
            stage.remove_an_element("isolated-ns", "debian-pod-1").await?;
        }
        let judged = judge(&stage, &claims, index).await;
        reports.extend(judged.with_context(|| format!("situation {}", variant.name))?);
        // A connection that situation "A" allows and "A + B" does not: to the server's ingress.
        match index {
            1 => match LiveConnection::open(&stage).await {
                Ok(connection) => live = Some(connection),
                Err(error) => shown.push((format!("{error:#}"), false)),
            },
            2 => shown.extend(live.take().map(LiveConnection::outcome)),
            _ => {}
        }
    }
    let outcome = Outcome { reports, shown, took: began.elapsed(), started };
    Ok((outcome, stage))
}

/// Objects with which machines are tried.
pub(crate) fn sample_objects() -> &'static str {
    scenario::SAMPLE
}

/// The scenario's pods, surroundings and policy A, by name.
#[cfg(test)]
pub(crate) fn scenario_objects() -> [(&'static str, &'static str); 3] {
    [("pods", PODS), ("surroundings", SURROUNDINGS), ("sample", sample_objects())]
}

fn claims() -> anyhow::Result<Vec<Claim>> {
    let loaded =
        sluice_kinds::load([("claims.yaml", CLAIMS.as_bytes())], "default", &sluice_kinds::Limits::FILE);
    crate::ask::claims_of(&loaded.objects)
}

/// Judges every claim that is asked in a situation.
async fn judge(stage: &Stage, claims: &[Claim], variant: usize) -> anyhow::Result<Vec<ClaimReport>> {
    let (world, _) = crate::input::world_of(&stage.client).await?;
    let asked: Vec<Asked<'_>> = claims
        .iter()
        .filter_map(|claim| {
            let expected = scenario::expected(&claim.name, variant)?;
            Some(Asked { claim, expected: Some(expected), observed: scenario::is_observed(&claim.name) })
        })
        .collect();
    judge_asked(stage, world, &asked, &CATALOGUE, VARIANTS[variant].name)
}

/// A claim that is asked in a situation.
pub(crate) struct Asked<'c> {
    pub(crate) claim: &'c Claim,
    /// What the reference says of it, if it does. Without it a claim of which not every packet can be sent is observed as
    /// undecided where what was seen is not what is declared.
    pub(crate) expected: Option<ClaimState>,
    /// Whether packets are sent for it.
    pub(crate) observed: bool,
}

/// Judges claims three ways, as the lab stands now. `catalogue` stands for all transports where a claim lists none.
pub(crate) fn judge_asked(
    stage: &Stage,
    world: World,
    asked: &[Asked<'_>],
    catalogue: &[(Protocol, Option<u16>)],
    variant: &str,
) -> anyhow::Result<Vec<ClaimReport>> {
    stage.vantage.know(&world);
    let before = read_back(stage, &world)?;
    let outside: Vec<IpAddr> = stage.outside.clone();
    let ports = catalogue.iter().filter_map(|(protocol, port)| Some((*protocol, (*port)?))).collect();
    let snapshot = Snapshot::of_cluster(world).with_landmarks(outside.clone(), ports);
    let sampled: Vec<Vec<Sample>> = asked.iter().map(|a| samples(&snapshot, a.claim, catalogue)).collect();
    // each packet is sent once, whatever the number of claims that ask about it
    let mut sent: BTreeMap<Sample, usize> = BTreeMap::new();
    let mut packets: Vec<Sample> = Vec::new();
    for (asked, samples) in asked.iter().zip(&sampled) {
        let sendable: Vec<&Sample> =
            samples.iter().filter(|s| asked.observed && can_be_sent(s, &snapshot, &outside)).collect();
        let chosen = match asked.expected {
            Some(_) => sendable,
            None => chosen(sendable, &before)?,
        };
        for sample in chosen {
            let plain = Sample { listed: true, target: true, ..sample.clone() };
            sent.entry(plain.clone()).or_insert_with(|| {
                packets.push(plain);
                packets.len() - 1
            });
        }
    }
    let vantage = stage.vantage.clone();
    let world = snapshot.world().clone();
    let probes = tokio::task::block_in_place(|| {
        let by_service = by_service(&packets, &world);
        truths::observe(vantage.as_ref(), &packets, &by_service, &before, || read_back(stage, &world))
    })?;
    let mut reports = Vec::new();
    for (asked, samples) in asked.iter().zip(sampled) {
        let own: Vec<(Sample, Probe)> = samples
            .iter()
            .filter(|_| asked.observed)
            .filter_map(|s| {
                let plain = Sample { listed: true, target: true, ..s.clone() };
                Some((s.clone(), probes[*sent.get(&plain)?].clone()))
            })
            .collect();
        reports.push(report(&snapshot, asked, variant, &samples, own, &before)?);
    }
    Ok(reports)
}

/// Packets of each sort that are sent for a claim, where there are more.
const OF_EACH_SORT: usize = 24;

/// Some of the packets of a claim: of those that the kernel passes and those that it drops, listed and not, to its ends and not,
/// up to [`OF_EACH_SORT`] each, spread evenly.
fn chosen<'s>(samples: Vec<&'s Sample>, kernel: &Programmed) -> anyhow::Result<Vec<&'s Sample>> {
    let mut sorts: BTreeMap<(bool, bool, bool), Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        let passes = kernel.ruling(&sample.flow)?.0.allowed;
        sorts.entry((passes, sample.listed, sample.target)).or_default().push(sample);
    }
    let spread = |sort: Vec<&'s Sample>| {
        let step = sort.len().div_ceil(OF_EACH_SORT).max(1);
        sort.into_iter().step_by(step)
    };
    Ok(sorts.into_values().flat_map(spread).collect())
}

fn report(
    snapshot: &Snapshot,
    asked: &Asked<'_>,
    variant: &str,
    samples: &[Sample],
    observed: Vec<(Sample, Probe)>,
    kernel: &Programmed,
) -> anyhow::Result<ClaimReport> {
    let Asked { claim, expected, observed: is_observed } = asked;
    let result = judge_claim(snapshot, claim);
    let mut ruled = Vec::with_capacity(samples.len());
    for sample in samples {
        ruled.push((sample.clone(), kernel.ruling(&sample.flow)?.0.allowed));
    }
    let (programmed, programmed_witness) = judge_samples(claim, &ruled);
    let probes: Vec<Probe> = observed.iter().map(|(_, p)| p.clone()).collect();
    let seen: Vec<(Sample, bool)> =
        observed.into_iter().map(|(s, p)| (s, p.observation == Observation::Answered)).collect();
    let unsent = samples.len() - seen.len();
    let mut contradictions = Vec::new();
    let observed = is_observed.then(|| {
        let (state, witness) = judge_samples(claim, &seen);
        if let Some(why) = render::inconclusive(&probes) {
            contradictions.push(format!("observed is undecided: {why}"));
            return ClaimState::Undecided;
        }
        if state != result.state && expected.is_none() && unsent > 0 {
            return ClaimState::Undecided;
        }
        if state != result.state {
            let packet = witness.map(|w| format!(" ({w})")).unwrap_or_default();
            contradictions.push(format!("observed says {state}{packet}, declared says {}", result.state));
        }
        state
    });
    if programmed != result.state {
        let packet = programmed_witness.map(|w| format!(" ({w})")).unwrap_or_default();
        contradictions.push(format!("programmed says {programmed}{packet}, declared says {}", result.state));
    }
    if let Some(expected) = expected.filter(|expected| *expected != result.state) {
        contradictions.push(format!("declared says {}, the reference says {expected}", result.state));
    }
    for ((sample, answered), (_, allowed)) in
        seen.iter().filter_map(|(s, a)| Some(((s, a), ruled.iter().find(|(r, _)| r == s)?)))
    {
        if answered != allowed {
            let word = |passed: bool| if passed { "passes" } else { "is dropped" };
            contradictions.push(format!(
                "{} {} by the kernel's tables but {} in fact",
                sample.flow,
                word(*allowed),
                word(*answered)
            ));
        }
    }
    Ok(ClaimReport {
        id: claim.name.to_string(),
        text: claim.text.to_string(),
        variant: variant.into(),
        expected: *expected,
        truths: Truths { declared: Some(result.state), programmed: Some(programmed), observed },
        result,
        probes,
        contradictions,
    })
}

/// Packets that something answers if they arrive: UDP needs a server, because refusals by ICMP are rate limited; outside there is
/// one host only, which knows the way to pods.
fn can_be_sent(sample: &Sample, snapshot: &Snapshot, outside: &[IpAddr]) -> bool {
    let protocol = sample.flow.protocol();
    let is_beyond =
        |place: &Place| place.pod.is_none() && !snapshot.plan().nodes.contains_key(&place.address);
    let is_outside = is_beyond(&sample.to);
    let serves_udp = sample.to.pod.as_ref().is_some_and(|key| {
        let pod = snapshot.world().pods.get(key);
        pod.is_some_and(|p| p.named_ports.iter().any(|port| port.protocol == Protocol::UDP))
    });
    scenario::is_probed(protocol)
        && (!is_beyond(&sample.from) || (outside.contains(&sample.from.address) && sample.to.pod.is_some()))
        && (!is_outside || outside.contains(&sample.to.address))
        && (protocol != Protocol::UDP || is_outside || serves_udp)
}

/// The packets whose destination is a Service's backend, as clients in the cluster send them: to the Service address.
fn by_service(packets: &[Sample], world: &World) -> Vec<(usize, Flow)> {
    let mut flows = Vec::new();
    for (index, sample) in packets.iter().enumerate() {
        // outside nobody knows the way to Service addresses
        if sample.from.pod.is_none() && !sample.from.name.starts_with("node ") {
            continue;
        }
        let Transport::Ports { protocol, source, destination } = sample.flow.transport else { continue };
        for slice in world.slices.values() {
            let is_backend = slice.endpoints.iter().any(|e| e.addresses.contains(&sample.flow.destination));
            let port = slice.ports.iter().find(|p| p.protocol == protocol && p.port == Some(destination));
            let service = world.services.get(&(slice.namespace.clone(), slice.service.clone()));
            let (true, Some(port), Some(service)) = (is_backend, port, service) else { continue };
            let front = service.ports.iter().find(|p| p.name == port.name && p.protocol == protocol);
            let family = sample.flow.family();
            let address = service.cluster_ips.iter().find(|a| Family::of(**a) == family);
            if let (Some(front), Some(address)) = (front, address) {
                let transport = Transport::Ports { protocol, source, destination: front.port };
                flows.push((index, Flow { source: sample.flow.source, destination: *address, transport }));
            }
        }
    }
    flows
}

/// The tables of all nodes as their kernels hold them now.
fn read_back(stage: &Stage, world: &World) -> anyhow::Result<Programmed> {
    let mut tables = BTreeMap::new();
    for node in &stage.nodes {
        if let Some(table) = stage.read_table(&node.name)? {
            tables.insert(node.name.clone(), table);
        }
    }
    let nodes = world
        .nodes
        .values()
        .map(|n| KnownNode { name: n.name.to_string(), addresses: n.addresses.clone() })
        .collect();
    let pods = world
        .pods
        .values()
        .flat_map(|p| p.live_addresses().iter().filter_map(|a| Some((*a, p.node.as_ref()?.to_string()))))
        .collect();
    Ok(Programmed { tables, nodes, pods })
}

#[cfg(test)]
mod tests {
    use sluice_model::ObjectDelta;

    use super::*;

    #[test]
    fn a_backend_is_also_asked_by_its_service_address() {
        let text = "
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIPs: [10.43.0.10], ports: [{name: dns, protocol: UDP, port: 5353, targetPort: 53}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: [10.42.0.4]}]
ports: [{name: dns, protocol: UDP, port: 53}]
";
        let loaded = sluice_kinds::load([("t", text.as_bytes())], "default", &sluice_kinds::Limits::FILE);
        assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        let mut world = World::default();
        for object in loaded.objects.iter().filter_map(|o| o.to_model().object) {
            world.apply(ObjectDelta::Upsert(object));
        }
        let place = |address: &str| Place {
            name: format!("n/{address}"),
            address: address.parse().expect("an address"),
            pod: Some(sluice_model::PodKey::new("n", address)),
        };
        let sample = |to: &str, transport| Sample {
            from: place("10.42.1.2"),
            to: place(to),
            flow: Flow { source: place("10.42.1.2").address, destination: place(to).address, transport },
            listed: true,
            target: true,
        };
        let packets = [
            sample("10.42.0.9", Transport::udp(40_000, 53)),
            sample("10.42.0.4", Transport::tcp(40_000, 53)),
            sample("10.42.0.4", Transport::udp(40_000, 53)),
        ];
        let flows = by_service(&packets, &world);
        assert_eq!(flows.len(), 1, "{flows:?}");
        assert_eq!(
            (flows[0].0, flows[0].1.to_string().as_str()),
            (2, "UDP 10.42.1.2:40000 -> 10.43.0.10:5353")
        );
    }
}
