//! Questions: can, explain, reach, verify, dump.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;

use anyhow::bail;
use sluice_addr::{AddrSet, Family, PortRange};
use sluice_analysis::{Place, Snapshot, TransportSet};
use sluice_model::{Circumstances, Direction, Namespace, ObjectDelta, Pod, PodKey, World};
use sluice_report::{Claim, ClaimResult, ClaimState, Explanation, ReachRow, Reachability, Verdict};
use sluice_selector::Labels;

use crate::args::{AnswerOutput, Dump, DumpWhat, Question, Reach, ReachOutput, Verify, VerifyOutput};
use crate::exit::Exit;
use crate::input::{self, Input};
use crate::judge::{self, Asked, Judge, Judged};
use crate::render::junit::{self, Case, Outcome};
use crate::render::style::{Colour, Style};
use crate::render::text::markdown;
use crate::render::{picture, reach as rows};
use crate::resolve::{self, End};

/// What stands for a controller of Ingress and Gateway objects that is not among the objects.
const CONTROLLER: &str = "ingress-controller";

/// `sluice can`.
pub(crate) fn can(question: &Question) -> anyhow::Result<Exit> {
    let (input, from, to, judged) = asked(question)?;
    match question.output {
        AnswerOutput::Json => println!("{}", serde_json::to_string_pretty(&judge::answer(None, &judged))?),
        AnswerOutput::Table => {
            let verdict = Style::of_stdout().verdict(judged.verdict);
            let (port, because) = (&question.port, because(&judged));
            println!("{verdict}  {port}  {} -> {}  {because}", from.name, to.name);
        }
    }
    Ok(input.exit(exit_of(judged.verdict)))
}

/// `sluice explain`.
pub(crate) fn explain(question: &Question) -> anyhow::Result<Exit> {
    let (input, from, to, judged) = asked(question)?;
    let snapshot = Snapshot::new(input.placed.world.clone());
    let circumstances = Circumstances { through_service: to.service.is_some(), ..Circumstances::default() };
    // the connection that shows the verdict first, then what else differs from it
    let mut paths = Vec::new();
    for flow in &judged.flows {
        paths.extend(sluice_analysis::explain(&snapshot, flow, &circumstances).paths);
    }
    let mut explanation =
        Explanation::new(from.name.clone(), to.name.clone(), judged.backends.clone(), paths);
    explanation.verdict = judged.verdict;
    explanation.missing = judged.missing.clone();
    match question.output {
        AnswerOutput::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
        AnswerOutput::Table => {
            let text = explanation.text();
            let rest = text.strip_prefix(judged.verdict.word()).unwrap_or(&text);
            print!("{}{rest}", Style::of_stdout().verdict(judged.verdict));
        }
    }
    Ok(input.exit(exit_of(judged.verdict)))
}

fn asked(question: &Question) -> anyhow::Result<(Input, End, End, Judged)> {
    let input = input::read(&question.source)?;
    let end = |text: &str| resolve::end(&input.placed.world, text, &question.source.namespace);
    let (from, to) = (end(&question.from)?, end(&question.to)?);
    let judged = Judge::new(&input.placed).judge(&from, &to, &Asked::parse(&question.port)?)?;
    Ok((input, from, to, judged))
}

fn because(judged: &Judged) -> String {
    if let Some(missing) = judged.missing.first() {
        return format!("missing: {missing}");
    }
    let Some((_, decision)) = &judged.decision else { return String::new() };
    match (decision.denying_leg(), &decision.shortcut) {
        (Some(leg), _) => format!("at {leg}"),
        (None, _) if decision.denying_stage().is_some() => {
            decision.denying_stage().map(|stage| format!("at {stage}")).unwrap_or_default()
        }
        (None, Some(shortcut)) => shortcut.to_string(),
        (None, None) => decision.legs().map(|leg| format!("at {leg}")).collect::<Vec<_>>().join("; "),
    }
}

fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Allow => Exit::Yes,
        Verdict::Deny => Exit::No,
        Verdict::Undecided => Exit::Undecided,
    }
}

/// `sluice reach`.
pub(crate) fn reach(command: &Reach) -> anyhow::Result<Exit> {
    let input = input::read(&command.source)?;
    if let Some(end) = &command.exposure {
        return exposure(&input, end, command);
    }
    let reachability = reachability(&input, command)?;
    let world = &input.placed.world;
    let workload = |name: &str| -> Option<String> {
        let (namespace, pod) = name.split_once('/')?;
        let pod = world.pods.get(&PodKey::new(namespace, pod))?;
        let (kind, workload) = pod.workload.as_deref()?.split_once(' ')?;
        let (namespace, name) = workload.split_once('/')?;
        Some(format!("{namespace}/{}/{name}", kind.to_lowercase()))
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match command.output {
        ReachOutput::Json => serde_json::to_writer_pretty(&mut out, &reachability)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out)),
        ReachOutput::Csv => rows::comma_separated(&mut out, &reachability),
        ReachOutput::Md => rows::page(&mut out, &reachability),
        ReachOutput::Table => rows::table(&mut out, &reachability),
        ReachOutput::Dot => out.write_all(picture::graph(&reachability, &workload).as_bytes()),
        ReachOutput::Svg => out.write_all(picture::matrix(&reachability, &workload).as_bytes()),
    };
    // whoever reads us may stop at any time
    let _ = written.and_then(|()| out.flush());
    Ok(input.exit(Exit::Yes))
}

fn exposure(input: &Input, text: &str, command: &Reach) -> anyhow::Result<Exit> {
    let end = resolve::end(&input.placed.world, text, &command.source.namespace)?;
    if end.pods.is_empty() {
        bail!("{text} is no pod and no workload");
    }
    let snapshot = Snapshot::new(input.placed.world.clone());
    let exposure = sluice_analysis::exposure(&snapshot, text, &end.pods);
    match command.output {
        ReachOutput::Json => println!("{}", serde_json::to_string_pretty(&exposure)?),
        ReachOutput::Table => print!("{}", exposure.text()),
        ReachOutput::Csv | ReachOutput::Md | ReachOutput::Dot | ReachOutput::Svg => {
            bail!("exposure is shown as table or json")
        }
    }
    Ok(input.exit(Exit::Yes))
}

fn reachability(input: &Input, command: &Reach) -> anyhow::Result<Reachability> {
    let placed = &input.placed;
    let filter = |text: &Option<String>| -> anyhow::Result<Option<End>> {
        text.as_ref().map(|t| resolve::end(&placed.world, t, &command.source.namespace)).transpose()
    };
    // the controller is no object, but its rows can be asked for
    let asks_controller = command.from.as_deref() == Some(CONTROLLER);
    let from = if asks_controller { None } else { filter(&command.from)? };
    let to = filter(&command.to)?;
    let outside = [&from, &to].into_iter().flatten().filter(|e| e.pods.is_empty());
    let landmarks: Vec<IpAddr> = outside.flat_map(|e| e.addresses.clone()).collect();
    let snapshot = Snapshot::new(placed.world.clone()).with_landmarks(landmarks, Vec::new());
    let accepts =
        |end: &Option<End>, place: &Place| end.as_ref().is_none_or(|e| e.addresses.contains(&place.address));
    let mut reachability = match asks_controller {
        true => Reachability::new(Vec::new()),
        false => sluice_analysis::reachability(&snapshot, |p| accepts(&from, p), |p| accepts(&to, p)),
    };
    mark_undecided(&snapshot, input, &mut reachability.rows);
    name_ranges(&snapshot, &mut reachability.rows, (command.from.is_none(), command.to.is_none()));
    if from.is_none() {
        let entered = entered(input, to.as_ref());
        reachability.rows.extend(entered);
    }
    Ok(reachability)
}

/// Names outside ends that were not asked for by the addresses that they stand for: every one that policies do not tell
/// apart. A pod or node in a range is not meant.
fn name_ranges(snapshot: &Snapshot, rows: &mut [ReachRow], (from, to): (bool, bool)) {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for row in rows {
        for (name, wanted) in [(&mut row.from, from), (&mut row.to, to)] {
            let Some(address) = name.strip_prefix("outside ").and_then(|a| a.parse::<IpAddr>().ok()) else {
                continue;
            };
            if wanted {
                *name = known.entry(name.clone()).or_insert_with(|| range_name(snapshot, address)).clone();
            }
        }
    }
}

fn range_name(snapshot: &Snapshot, address: IpAddr) -> String {
    let plan = snapshot.plan();
    let class = plan.class_of(address);
    let same = plan.spans().filter(|(_, other)| Some(*other) == class).map(|(range, _)| range);
    let texts = AddrSet::from_iter(same)
        .iter()
        .map(|range| match range.to_cidrs().as_slice() {
            [only] => only.to_string(),
            _ => format!("{}-{}", range.first(), range.last()),
        })
        .collect::<Vec<_>>();
    format!("outside {}", texts.join(","))
}

/// Rows whose ends have no address yet hang on CIDRs that name a part of the pod range, if a policy that judges them has
/// one (semantics 1.11).
fn mark_undecided(snapshot: &Snapshot, input: &Input, rows: &mut [ReachRow]) {
    let placed = &input.placed;
    if !placed.is_split() {
        return;
    }
    let mut judged: BTreeMap<(String, bool), Option<String>> = BTreeMap::new();
    let mut by = |name: &str, direction: Direction| -> Option<String> {
        let found = judged.entry((name.to_owned(), direction == Direction::Egress)).or_insert_with(|| {
            let (namespace, pod) = name.split_once('/')?;
            let key = PodKey::new(namespace, pod);
            let address = *placed.world.pods.get(&key)?.live_addresses().first()?;
            let place = Place { name: name.to_owned(), address, pod: Some(key) };
            placed.split_of(&snapshot.policies_of(&place, direction)).map(|cidr| cidr.to_string())
        });
        found.clone()
    };
    let assumed: std::collections::BTreeSet<String> =
        placed.assumed.iter().map(ToString::to_string).collect();
    for row in rows {
        if !assumed.contains(&row.from) && !assumed.contains(&row.to) {
            continue;
        }
        let cidr = by(&row.from, Direction::Egress).or_else(|| by(&row.to, Direction::Ingress));
        let Some(cidr) = cidr else { continue };
        for name in [&row.from, &row.to].into_iter().filter(|name| assumed.contains(*name)) {
            row.undecided.push(format!("the address of {name}, because a policy names {cidr}"));
        }
    }
}

/// What comes in through Ingress and Gateway objects, where their controller is not among the objects: it is taken for a pod
/// without labels in a namespace of its own.
fn entered(input: &Input, to: Option<&End>) -> Vec<ReachRow> {
    if input.entrances.is_empty() || !input::controllers(&input.placed.world).is_empty() {
        return Vec::new();
    }
    let mut world = input.placed.world.clone();
    let namespace = Namespace {
        name: CONTROLLER.into(),
        labels: Labels::from_iter([("kubernetes.io/metadata.name", CONTROLLER)]),
        annotations: Labels::default(),
    };
    let key = PodKey::new(CONTROLLER, CONTROLLER);
    world.apply(ObjectDelta::Upsert(sluice_model::Object::Namespace(namespace)));
    world.apply(ObjectDelta::Upsert(sluice_model::Object::Pod(Pod {
        key: key.clone(),
        uid: "".into(),
        labels: Labels::default(),
        service_account: "default".into(),
        node: None,
        host_network: false,
        addresses: Vec::new(),
        named_ports: Vec::new(),
        finished: false,
        deleting: false,
        workload: None,
    })));
    let snapshot = Snapshot::new(resolve::place(world).world);
    let mut rows: BTreeMap<(String, String), (Family, TransportSet)> = BTreeMap::new();
    for entrance in &input.entrances {
        let wanted = |_, number: u16, name: &str| {
            entrance.port.is_empty() || entrance.port == name || entrance.port == number.to_string()
        };
        for backend in input::backends(snapshot.world(), &entrance.namespace, &entrance.service, wanted) {
            let family = Family::of(backend.address);
            let places = snapshot.pods(family);
            let source = places.iter().find(|p| p.pod.as_ref() == Some(&key));
            let target = places.iter().find(|p| p.address == backend.address);
            let (Some(source), Some(target)) = (source, target) else { continue };
            if to.is_some_and(|to| !to.addresses.contains(&target.address)) {
                continue;
            }
            let port = PortRange::single(backend.port.unwrap_or(backend.front));
            let asked = TransportSet::of(family, backend.protocol, Some(port));
            let allowed = snapshot.admitted(source, target).intersect(&asked);
            rows.entry((target.name.clone(), family.to_string()))
                .and_modify(|(_, all)| *all = all.union(&allowed))
                .or_insert((family, allowed));
        }
    }
    let row = |((to, family), (_, allowed)): ((String, String), (Family, TransportSet))| ReachRow {
        from: CONTROLLER.into(),
        to,
        family,
        allowed: allowed.describe(),
        undecided: Vec::new(),
    };
    rows.into_iter().map(row).collect()
}

/// `sluice verify`.
pub(crate) fn verify(command: &Verify) -> anyhow::Result<Exit> {
    let input = input::read(&command.source)?;
    let claims = claims(&command.claims, &command.source.namespace)?;
    if claims.is_empty() {
        bail!("{} holds no ConnectivityClaim", command.claims.display());
    }
    let snapshot = Snapshot::new(input.placed.world.clone());
    let results: Vec<(Claim, ClaimResult)> =
        claims.into_iter().map(|c| (c.clone(), sluice_analysis::judge_claim(&snapshot, &c))).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match command.output {
        VerifyOutput::Json => {
            let rows: Vec<_> = results
                .iter()
                .map(|(claim, result)| serde_json::json!({"name": claim.name, "text": claim.text, "result": result}))
                .collect();
            let object = serde_json::json!({
                "apiVersion": sluice_report::API_VERSION, "kind": "ClaimResults", "claims": rows,
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&object)?)
        }
        VerifyOutput::Junit => junit::write(&mut out, "sluice verify", &cases(&results)),
        VerifyOutput::Md => claims_page(&mut out, &results),
        VerifyOutput::Table => claims_table(&mut out, &results),
    };
    let _ = written.and_then(|()| out.flush());
    Ok(input.exit(exit_of_claims(results.iter().map(|(_, r)| r.state))))
}

/// 1 if a claim fails, else 3 if one is undecided.
pub(crate) fn exit_of_claims(states: impl Iterator<Item = ClaimState>) -> Exit {
    let mut exit = Exit::Yes;
    for state in states {
        match state {
            ClaimState::Fails => return Exit::No,
            ClaimState::Undecided => exit = Exit::Undecided,
            ClaimState::Holds | ClaimState::Vacuous => {}
        }
    }
    exit
}

/// What else is to be said of a claim.
fn remarks(result: &ClaimResult) -> Vec<String> {
    let mut remarks: Vec<String> =
        result.depends_on.iter().map(|flag| format!("depends on: {flag}")).collect();
    if result.stated_reason_wrong {
        remarks.push("the stated reason is wrong".into());
    }
    remarks.extend(result.missing.iter().map(|missing| format!("missing: {missing}")));
    remarks
}

fn claims_table(out: &mut impl Write, results: &[(Claim, ClaimResult)]) -> io::Result<()> {
    let style = Style::of_stdout();
    for (claim, result) in results {
        let colour = match result.state {
            ClaimState::Holds => Colour::Blue,
            ClaimState::Fails => Colour::Vermilion,
            ClaimState::Vacuous | ClaimState::Undecided => Colour::Grey,
        };
        let state = style.paint(colour, &format!("{:16}", result.state.word()));
        writeln!(out, "{state} {}: {}", claim.name, claim.text)?;
        for line in [result.reason.clone()].into_iter().chain(remarks(result)) {
            writeln!(out, "{:16} {line}", "")?;
        }
    }
    Ok(())
}

fn claims_page(out: &mut impl Write, results: &[(Claim, ClaimResult)]) -> io::Result<()> {
    writeln!(out, "| claim | says | is | because |\n|---|---|---|---|")?;
    for (claim, result) in results {
        let because =
            [result.reason.clone()].into_iter().chain(remarks(result)).collect::<Vec<_>>().join("; ");
        let cells = [&claim.name, &claim.text, result.state.word(), &because].map(markdown);
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    Ok(())
}

fn cases(results: &[(Claim, ClaimResult)]) -> Vec<Case> {
    let case = |(claim, result): &(Claim, ClaimResult)| {
        let mut detail = vec![claim.text.to_string(), result.reason.clone()];
        detail.extend(result.witness.iter().map(ToString::to_string));
        detail.extend(remarks(result));
        let outcome = match result.state {
            ClaimState::Holds | ClaimState::Vacuous => {
                Outcome::Passed(format!("{}: {}", result.state, result.reason))
            }
            ClaimState::Fails => {
                Outcome::Failed { message: result.reason.clone(), detail: detail.join("\n") }
            }
            ClaimState::Undecided => Outcome::Undecided(result.missing.join("; ")),
        };
        Case { class: "ConnectivityClaim".into(), name: claim.name.to_string(), outcome }
    };
    results.iter().map(case).collect()
}

/// The claims of a file or folder.
pub(crate) fn claims(path: &Path, namespace: &str) -> anyhow::Result<Vec<Claim>> {
    let objects = input::load(&[path.to_owned()], namespace)?;
    claims_of(&objects)
}

/// The claims among loaded objects; one that cannot be read is an error.
pub(crate) fn claims_of(objects: &[sluice_kinds::LoadedObject]) -> anyhow::Result<Vec<sluice_report::Claim>> {
    objects.iter().filter(|o| o.gvk.kind == "ConnectivityClaim").map(crate::claims::read).collect()
}

/// `sluice dump`.
pub(crate) fn dump(command: &Dump) -> anyhow::Result<Exit> {
    let input = input::read(&command.source)?;
    let plan = compile(&input.placed.world, command.node.as_deref());
    match command.what {
        DumpWhat::Plan => print!("{plan}"),
        DumpWhat::Nft => {
            let interfaces = plan.endpoints.keys().map(|k| (k.clone(), format!("slu-{}", k.name))).collect();
            let site = sluice_dataplane::Site {
                interfaces,
                nodes: plan.nodes.keys().copied().collect(),
                overlay_port: Some(8472),
            };
            print!("{}", sluice_netlink::nft::table_text(&sluice_dataplane::compile(&plan, &site)));
        }
    }
    Ok(input.exit(Exit::Yes))
}

/// The plan of a node, or of the whole cluster.
pub(crate) fn compile(world: &World, node: Option<&str>) -> sluice_plan::Plan {
    let scope = match node {
        Some(node) => sluice_engine::Scope::Node(node.into()),
        None => sluice_engine::Scope::Cluster,
    };
    let mut engine = sluice_engine::Engine::new(scope);
    for object in world.objects() {
        engine.apply(sluice_model::ObjectDelta::Upsert(object));
    }
    engine.flush();
    engine.plan().clone()
}
