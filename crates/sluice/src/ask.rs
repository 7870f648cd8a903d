//! Questions: can, explain, verify, dump.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::bail;
use sluice_model::World;
use sluice_report::{Answer, Claim, ClaimResult, ClaimState, Explanation};

use crate::args::{AnswerOutput, Dump, DumpWhat, Question, Verify, VerifyOutput};
use crate::changes::Changes;
use crate::exit::Exit;
use crate::input::{self, Input};
use crate::judge::{self, Asked, Judge, Judged};
use crate::render::data::{self, Form};
use crate::render::junit::{self, Case, Outcome};
use crate::render::style::{Colour, Style};
use crate::render::text::markdown;
use crate::resolve::{self, End};

/// `sluice can`.
pub(crate) fn can(question: &Question) -> anyhow::Result<Exit> {
    let (input, from, to, judged) = asked(question)?;
    match question.output {
        AnswerOutput::Json => data::print(Form::Json, &judge::answer(None, &judged)),
        AnswerOutput::Yaml => data::print(Form::Yaml, &judge::answer(None, &judged)),
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
    let snapshot = input.placed.snapshot();
    let circumstances = input.placed.circumstances(to.service.is_some());
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
        AnswerOutput::Json => data::print(Form::Json, &explanation),
        AnswerOutput::Yaml => data::print(Form::Yaml, &explanation),
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
    let end = |text: &str| resolve::end(&input.placed.world, text, &question.source.namespace());
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

fn exit_of(verdict: Answer) -> Exit {
    match verdict {
        Answer::Allow => Exit::Yes,
        Answer::Deny => Exit::No,
        Answer::Undecided => Exit::Undecided,
    }
}

/// `sluice verify`.
pub(crate) fn verify(command: &Verify) -> anyhow::Result<Exit> {
    if command.watch {
        return watch_claims(command);
    }
    let (input, results) = judged(command)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match command.output {
        VerifyOutput::Json => data::write(&mut out, Form::Json, &claim_results(&results)),
        VerifyOutput::Yaml => data::write(&mut out, Form::Yaml, &claim_results(&results)),
        VerifyOutput::Junit => junit::write(&mut out, "sluice verify", &cases(&results)),
        VerifyOutput::Md => claims_page(&mut out, &results),
        VerifyOutput::Table => claims_table(&mut out, &results),
    };
    let _ = written.and_then(|()| out.flush());
    Ok(input.exit(exit_of_claims(results.iter().map(|(_, r)| r.state))))
}

/// Judges the claims now.
fn judged(command: &Verify) -> anyhow::Result<(Input, Vec<(Claim, ClaimResult)>)> {
    let input = input::read(&command.source)?;
    let claims = claims(&command.claims, &command.source.namespace())?;
    if claims.is_empty() {
        bail!("{} holds no ConnectivityClaim", command.claims.display());
    }
    let snapshot = input.placed.snapshot();
    let results: Vec<(Claim, ClaimResult)> =
        claims.into_iter().map(|c| (c.clone(), sluice_analysis::judge_claim(&snapshot, &c))).collect();
    Ok((input, results))
}

fn claim_results(results: &[(Claim, ClaimResult)]) -> serde_json::Value {
    let row = |(claim, result): &(Claim, ClaimResult)| serde_json::json!({"name": claim.name, "text": claim.text, "result": result});
    let rows: Vec<_> = results.iter().map(row).collect();
    serde_json::json!({"apiVersion": sluice_report::API_VERSION, "kind": "ClaimResults", "claims": rows})
}

/// Judges the claims again whenever something has changed, and prints those of which the verdict has.
fn watch_claims(command: &Verify) -> anyhow::Result<Exit> {
    let reads_input = |path: &Path| path == Path::new("-");
    if reads_input(&command.claims) || command.source.files.iter().any(|file| reads_input(file)) {
        bail!("standard input does not change: name files with --watch");
    }
    if !matches!(command.output, VerifyOutput::Table | VerifyOutput::Json) {
        bail!("--watch prints table or json");
    }
    let runtime = crate::runtime()?;
    let mut changes =
        runtime.block_on(Changes::of(&command.source, std::slice::from_ref(&command.claims)))?;
    let mut stop = Box::pin(crate::up::interrupted());
    let mut known: BTreeMap<String, ClaimResult> = BTreeMap::new();
    loop {
        match judged(command) {
            Ok((_, results)) => {
                let is_new = |(claim, result): &&(Claim, ClaimResult)| {
                    known.get(&*claim.name).is_none_or(|before| before.state != result.state)
                };
                let changed: Vec<_> = results.iter().filter(is_new).cloned().collect();
                let mut out = io::stdout().lock();
                let written = match command.output {
                    VerifyOutput::Json if changed.is_empty() => Ok(()),
                    VerifyOutput::Json => writeln!(out, "{}", claim_results(&changed)),
                    _ => claims_table(&mut out, &changed),
                };
                if written.and_then(|()| out.flush()).is_err() {
                    return Ok(exit_of_claims(results.iter().map(|(_, result)| result.state)));
                }
                known = results.into_iter().map(|(claim, result)| (claim.name.to_string(), result)).collect();
            }
            // a file that is half written now is whole soon
            Err(error) if !known.is_empty() => crate::exit::report(&error),
            Err(error) => return Err(error),
        }
        let interrupted = runtime.block_on(async {
            tokio::select! {
                exit = &mut stop => Some(exit),
                () = changes.next() => None,
            }
        });
        if let Some(exit) = interrupted {
            return Ok(exit);
        }
    }
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
    let plan = compile_as(&input.placed.world, command.node.as_deref(), input.placed.namespaces_are_complete);
    match command.what {
        DumpWhat::Plan => print!("{plan}"),
        DumpWhat::Nft => {
            let interfaces = plan.endpoints.keys().map(|k| (k.clone(), format!("slu-{}", k.name))).collect();
            let site = sluice_dataplane::Site {
                interfaces,
                nodes: plan.nodes.keys().copied().collect(),
                overlay_port: Some(8472),
                host: host_site(&plan, command.node.as_deref()),
            };
            print!("{}", sluice_netlink::nft::table_text(&sluice_dataplane::compile(&plan, &site)));
        }
    }
    Ok(input.exit(Exit::Yes))
}

/// A node as objects tell of it: its interfaces are those that host endpoints name. What cannot be shown is said.
fn host_site(plan: &sluice_plan::Plan, node: Option<&str>) -> Option<sluice_dataplane::HostSite> {
    let Some(node) = node else {
        if !plan.host_endpoints.is_empty() {
            eprintln!("note: the chains of host endpoints are those of one node; name it by --node");
        }
        return None;
    };
    for (name, endpoint) in &plan.host_endpoints {
        if endpoint.interface == sluice_model::InterfaceMatch::ByAddress {
            eprintln!("note: only node {node} knows which interface has an address of host endpoint {name}");
        }
    }
    let circumstances = sluice_model::Circumstances::default();
    Some(sluice_dataplane::HostSite {
        node: node.into(),
        interfaces: Vec::new(),
        failsafes: circumstances.failsafes,
        wireguard_ports: circumstances.wireguard_ports,
    })
}

/// The plan of a node, or of the whole cluster.
pub(crate) fn compile(world: &World, node: Option<&str>) -> sluice_plan::Plan {
    compile_as(world, node, false)
}

/// As [`compile`]; the namespaces among the objects may be all that exist.
pub(crate) fn compile_as(
    world: &World,
    node: Option<&str>,
    namespaces_are_complete: bool,
) -> sluice_plan::Plan {
    let scope = match node {
        Some(node) => sluice_engine::Scope::Node(node.into()),
        None => sluice_engine::Scope::Cluster,
    };
    let mut engine = sluice_engine::Engine::new(scope);
    if namespaces_are_complete {
        engine = engine.with_complete_namespaces();
    }
    for object in world.objects() {
        engine.apply(sluice_model::ObjectDelta::Upsert(object));
    }
    engine.flush();
    engine.plan().clone()
}
