//! Questions: can, explain, eval, reach, verify, dump.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail};
use sluice_addr::{Family, Flow, Protocol};
use sluice_analysis::{Place, Snapshot};
use sluice_model::{Decision, Leg, PodKey, World};
use sluice_report::{ClaimState, EvalAnswer, FlowQuestion, LegAnswer, ReachRow, Verdict};

use crate::args::{Dump, DumpWhat, Eval, Output, Question, Reach, Verify};
use crate::exit::Exit;
use crate::input;
use crate::resolve::{self, End, Placed};

/// Longest line of `eval`'s input, in bytes.
const MAX_LINE: u64 = 64 * 1024;

/// The judgement of all address pairs of two ends.
struct Judged {
    verdict: Verdict,
    missing: Vec<String>,
    /// The decision that shows the verdict.
    decision: Option<(Flow, Decision)>,
}

/// `sluice can`.
pub(crate) fn can(question: &Question) -> anyhow::Result<Exit> {
    let (placed, from, to, protocol, port) = prepare(question)?;
    let judged = judge(&placed, &from, &to, protocol, port, None, (None, None))?;
    match question.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&answer(None, &judged))?),
        _ => {
            let mark = mark(judged.verdict);
            println!(
                "{mark} {}  {}  {} -> {}  {}",
                judged.verdict,
                question.port,
                from.name,
                to.name,
                because(&judged)
            );
        }
    }
    Ok(exit_of(judged.verdict))
}

/// `sluice explain`.
pub(crate) fn explain(question: &Question) -> anyhow::Result<Exit> {
    let (placed, from, to, protocol, port) = prepare(question)?;
    let judged = judge(&placed, &from, &to, protocol, port, None, (None, None))?;
    if question.output == Output::Json {
        let decision = judged.decision.as_ref().map(|(_, d)| d);
        let object = serde_json::json!({
            "apiVersion": sluice_report::API_VERSION,
            "kind": "Explanation",
            "answer": answer(None, &judged),
            "flow": judged.decision.as_ref().map(|(f, _)| f),
            "trace": decision,
        });
        println!("{}", serde_json::to_string_pretty(&object)?);
        return Ok(exit_of(judged.verdict));
    }
    println!("{} {}  {}  {} -> {}", mark(judged.verdict), judged.verdict, question.port, from.name, to.name);
    if let Some((flow, decision)) = &judged.decision {
        println!("  {flow}");
        print_decision(decision);
    }
    for missing in &judged.missing {
        println!("  missing: {missing}");
    }
    Ok(exit_of(judged.verdict))
}

fn print_decision(decision: &Decision) {
    if let Some(shortcut) = &decision.shortcut {
        println!("  {shortcut}");
    }
    for leg in decision.legs() {
        println!("  {leg}");
        for tier in &leg.tiers {
            println!("    tier {} (default {:?})", tier.tier, tier.default_action);
            for policy in &tier.policies {
                println!("      {}", policy.policy);
                for rule in &policy.rules {
                    println!("        {} {rule}", if rule.matched() { "*" } else { "-" });
                }
                if policy.rules.is_empty() {
                    println!("        - no rules for {}", leg.direction);
                }
            }
        }
    }
    if decision.shortcut.is_none() && decision.legs().next().is_none() {
        println!("  neither end is a pod: no policy of pods applies");
    }
}

/// `sluice eval`.
pub(crate) fn eval(command: &Eval) -> anyhow::Result<Exit> {
    let placed = resolve::place(input::read(&command.source)?.world);
    let reader: Box<dyn BufRead> = if command.flows == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = std::fs::File::open(&command.flows);
        Box::new(BufReader::new(file.with_context(|| format!("cannot read {}", command.flows.display()))?))
    };
    let mut reader = reader;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut number = 0u64;
    let mut line = String::new();
    loop {
        line.clear();
        if std::io::Read::take(&mut reader, MAX_LINE).read_line(&mut line)? == 0 {
            break;
        }
        number += 1;
        if line.len() as u64 >= MAX_LINE {
            bail!("{}:{number}: a line of more than {MAX_LINE} bytes", command.flows.display());
        }
        if line.trim().is_empty() {
            continue;
        }
        let place = || format!("{}:{number}", command.flows.display());
        let question: FlowQuestion = serde_json::from_str(&line).with_context(place)?;
        let judged = judge_question(&placed, &question, &command.source.namespace).with_context(place)?;
        serde_json::to_writer(&mut out, &answer(question.id.clone(), &judged))?;
        if out.write_all(b"\n").is_err() {
            break; // the reader went away
        }
    }
    out.flush().ok();
    Ok(Exit::Yes)
}

fn judge_question(placed: &Placed, question: &FlowQuestion, namespace: &str) -> anyhow::Result<Judged> {
    let from = resolve::end(&placed.world, &question.from, namespace)?;
    let to = resolve::end(&placed.world, &question.to, namespace)?;
    let name = match question.port {
        Some(port) => format!("{port}/{}", question.protocol),
        None => question.protocol.clone(),
    };
    let (protocol, port) = resolve::protocol_and_port(&name)?;
    judge(placed, &from, &to, protocol, port, question.source_port, (question.type_, question.code))
}

fn prepare(question: &Question) -> anyhow::Result<(Placed, End, End, Protocol, Option<u16>)> {
    let placed = resolve::place(input::read(&question.source)?.world);
    let from = resolve::end(&placed.world, &question.from, &question.source.namespace)?;
    let to = resolve::end(&placed.world, &question.to, &question.source.namespace)?;
    let (protocol, port) = resolve::protocol_and_port(&question.port)?;
    Ok((placed, from, to, protocol, port))
}

/// Judges every pair of addresses of one family. One denied pair makes the answer Denied; pairs that differ are said so.
fn judge(
    placed: &Placed,
    from: &End,
    to: &End,
    protocol: Protocol,
    port: Option<u16>,
    source_port: Option<u16>,
    icmp: (Option<u8>, Option<u8>),
) -> anyhow::Result<Judged> {
    let mut decisions = Vec::new();
    for source in &from.addresses {
        for destination in to.addresses.iter().filter(|d| Family::of(**d) == Family::of(*source)) {
            let transport = resolve::transport(Family::of(*source), protocol, port, source_port, icmp)?;
            let flow = Flow { source: *source, destination: *destination, transport };
            decisions.push((flow, sluice_model::decide(&placed.world, &flow)));
        }
    }
    if decisions.is_empty() {
        bail!("{} and {} have no address of the same family", from.name, to.name);
    }
    let missing = missing(placed, from, to);
    let all_allowed = decisions.iter().all(|(_, d)| d.is_allowed());
    let verdict = match (missing.is_empty(), all_allowed) {
        (false, _) => Verdict::Undecided,
        (true, true) => Verdict::Allow,
        (true, false) => Verdict::Deny,
    };
    let decision = decisions.into_iter().find(|(_, d)| all_allowed || !d.is_allowed());
    Ok(Judged { verdict, missing, decision })
}

/// What would have to be known: a pod without address against a CIDR that holds only some pod addresses (semantics 1.11).
fn missing(placed: &Placed, from: &End, to: &End) -> Vec<String> {
    let assumed: BTreeSet<&PodKey> =
        from.pods.iter().chain(&to.pods).filter(|p| placed.assumed.contains(p)).collect();
    let mut missing = Vec::new();
    for cidr in &placed.splitting {
        for pod in &assumed {
            missing
                .push(format!("the address of {pod}: CIDR {cidr} holds some pod addresses and not others"));
        }
    }
    missing
}

fn answer(id: Option<serde_json::Value>, judged: &Judged) -> EvalAnswer {
    let decision = judged.decision.as_ref().map(|(_, d)| d);
    EvalAnswer {
        id,
        verdict: judged.verdict,
        egress: decision.and_then(|d| d.egress.as_ref()).map(leg_answer),
        ingress: decision.and_then(|d| d.ingress.as_ref()).map(leg_answer),
        missing: judged.missing.clone(),
    }
}

fn leg_answer(leg: &Leg) -> LegAnswer {
    let rule = leg.deciding_rule();
    LegAnswer {
        verdict: match leg.verdict {
            sluice_model::Verdict::Allow => Verdict::Allow,
            sluice_model::Verdict::Deny => Verdict::Deny,
        },
        reason: leg.to_string(),
        rule: rule.map(|r| format!("{} {}", r.object, r.path)),
        position: rule.and_then(|r| r.position.as_ref()).map(ToString::to_string),
    }
}

fn because(judged: &Judged) -> String {
    if let Some(missing) = judged.missing.first() {
        return format!("missing: {missing}");
    }
    let Some((_, decision)) = &judged.decision else { return String::new() };
    match (decision.denying_leg(), &decision.shortcut) {
        (Some(leg), _) => format!("at {leg}"),
        (None, Some(shortcut)) => shortcut.to_string(),
        (None, None) => decision.legs().map(|leg| format!("at {leg}")).collect::<Vec<_>>().join("; "),
    }
}

fn mark(verdict: Verdict) -> char {
    match verdict {
        Verdict::Allow => '+',
        Verdict::Deny => 'x',
        Verdict::Undecided => '?',
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
    let placed = resolve::place(input::read(&command.source)?.world);
    let filter = |text: &Option<String>| -> anyhow::Result<Option<End>> {
        text.as_ref().map(|t| resolve::end(&placed.world, t, &command.source.namespace)).transpose()
    };
    let (from, to) = (filter(&command.from)?, filter(&command.to)?);
    let landmarks: Vec<IpAddr> = [&from, &to]
        .into_iter()
        .flatten()
        .filter(|e| e.pods.is_empty())
        .flat_map(|e| e.addresses.clone())
        .collect();
    let snapshot = Snapshot::new(placed.world.clone()).with_landmarks(landmarks, Vec::new());
    let accepts =
        |end: &Option<End>, place: &Place| end.as_ref().is_none_or(|e| e.addresses.contains(&place.address));
    let mut reachability =
        sluice_analysis::reachability(&snapshot, |place| accepts(&from, place), |place| accepts(&to, place));
    if !placed.splitting.is_empty() {
        let assumed: BTreeSet<String> = placed.assumed.iter().map(ToString::to_string).collect();
        for row in &mut reachability.rows {
            for name in [&row.from, &row.to].into_iter().filter(|n| assumed.contains(*n)) {
                row.undecided
                    .push(format!("the address of {name} is not known and CIDRs split the pod range"));
            }
        }
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    match command.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&reachability)?)?,
        Output::Csv => {
            writeln!(out, "from,to,family,allowed,undecided")?;
            for row in &reachability.rows {
                let cells = [&row.from, &row.to, &row.family, &allowed_text(row), &row.undecided.join("; ")]
                    .map(|c| csv(c));
                writeln!(out, "{}", cells.join(","))?;
            }
        }
        Output::Md => {
            writeln!(out, "| from | to | family | allowed |\n|---|---|---|---|")?;
            for row in &reachability.rows {
                writeln!(out, "| {} | {} | {} | {} |", row.from, row.to, row.family, allowed_text(row))?;
            }
        }
        Output::Table => {
            let width = |pick: fn(&ReachRow) -> &String| {
                reachability.rows.iter().map(|r| pick(r).chars().count()).max().unwrap_or(0).max(4)
            };
            let (w1, w2) = (width(|r| &r.from), width(|r| &r.to));
            writeln!(out, "{:w1$}  {:w2$}  {:6}  ALLOWED", "FROM", "TO", "FAMILY")?;
            for row in &reachability.rows {
                writeln!(out, "{:w1$}  {:w2$}  {:6}  {}", row.from, row.to, row.family, allowed_text(row))?;
            }
        }
    }
    out.flush().ok();
    Ok(Exit::Yes)
}

fn allowed_text(row: &ReachRow) -> String {
    if !row.undecided.is_empty() {
        return format!("undecided: {}", row.undecided.join("; "));
    }
    if row.allowed.is_empty() {
        return "nothing".into();
    }
    let whole = row.allowed.iter().any(|a| a.protocol == "other")
        && row.allowed.iter().all(|a| a.ports.is_empty() || a.ports == [(0, u16::MAX)]);
    if whole {
        return "everything".into();
    }
    let one = |a: &sluice_report::AllowedPorts| {
        let ports: Vec<String> = a
            .ports
            .iter()
            .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
            .collect();
        if a.ports.is_empty() || a.ports == [(0, u16::MAX)] {
            a.protocol.clone()
        } else {
            format!("{} {}", a.protocol, ports.join(","))
        }
    };
    row.allowed.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A field of CSV; a leading character that spreadsheets take for a formula is neutralised.
fn csv(text: &str) -> String {
    let guarded = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
    format!("\"{}\"", guarded.replace('"', "\"\""))
}

/// `sluice verify`.
pub(crate) fn verify(command: &Verify) -> anyhow::Result<Exit> {
    let placed = resolve::place(input::read(&command.source)?.world);
    let claims = claims(&command.claims, &command.source.namespace)?;
    if claims.is_empty() {
        bail!("{} holds no ConnectivityClaim", command.claims.display());
    }
    let snapshot = Snapshot::new(placed.world.clone());
    let results: Vec<_> = claims.iter().map(|c| (c, sluice_analysis::judge_claim(&snapshot, c))).collect();
    match command.output {
        Output::Json => {
            let rows: Vec<_> = results
                .iter()
                .map(|(claim, result)| serde_json::json!({"name": claim.name, "text": claim.text, "result": result}))
                .collect();
            let object = serde_json::json!({
                "apiVersion": sluice_report::API_VERSION, "kind": "ClaimResults", "claims": rows,
            });
            println!("{}", serde_json::to_string_pretty(&object)?);
        }
        Output::Table | Output::Csv | Output::Md => {
            for (claim, result) in &results {
                println!("{:16} {}: {}", result.state.word(), claim.name, claim.text);
                println!("{:16} {}", "", result.reason);
                for flag in &result.depends_on {
                    println!("{:16} depends on: {flag}", "");
                }
                if result.stated_reason_wrong {
                    println!("{:16} the stated reason is wrong", "");
                }
                for missing in &result.missing {
                    println!("{:16} missing: {missing}", "");
                }
            }
        }
    }
    let any = |state| results.iter().any(|(_, r)| r.state == state);
    Ok(match (any(ClaimState::Fails), any(ClaimState::Undecided)) {
        (true, _) => Exit::No,
        (false, true) => Exit::Undecided,
        (false, false) => Exit::Yes,
    })
}

/// The claims of a file or folder.
pub(crate) fn claims(path: &Path, namespace: &str) -> anyhow::Result<Vec<sluice_report::Claim>> {
    let objects = input::load(&[path.to_owned()], namespace)?;
    claims_of(&objects)
}

/// The claims among loaded objects; one that cannot be read is an error.
pub(crate) fn claims_of(objects: &[sluice_kinds::LoadedObject]) -> anyhow::Result<Vec<sluice_report::Claim>> {
    objects.iter().filter(|o| o.gvk.kind == "ConnectivityClaim").map(crate::claims::read).collect()
}

/// `sluice dump`.
pub(crate) fn dump(command: &Dump) -> anyhow::Result<Exit> {
    let placed = resolve::place(input::read(&command.source)?.world);
    let plan = compile(placed.world, command.node.as_deref());
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
    Ok(Exit::Yes)
}

fn compile(world: World, node: Option<&str>) -> sluice_plan::Plan {
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
