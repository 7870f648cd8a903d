//! `sluice prove`: claims judged three ways in a lab that is made of any manifests.
//!
//! ```text
//!   manifests ──► namespaces, Services, policies as they are ─┐
//!            └──► one pod per workload, which serves its ports ┴──► lab ──► declared, programmed, observed
//! ```
//!
//! Images are not run: every pod is a sandbox that answers on the ports that its manifest declares. Verdicts do not depend on what
//! a pod does with a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::bail;
use serde_json::{Value, json};
use sluice_addr::Protocol;
use sluice_analysis::Place;
use sluice_kinds::LoadedObject;
use sluice_model::{Kind, Pod};
use sluice_report::{Claim, ClaimReport, ClaimState};

use crate::args::{DiffOutput, Prove};
use crate::demo::cells::{Cells, Draw, prove_cells};
use crate::demo::programming::Programming;
use crate::demo::{self, Asked};
use crate::exit::Exit;
use crate::input::{self, Input};
use crate::nearest;
use crate::progress;
use crate::render::data::{self, Form};
use crate::render::style::{Colour, Style};
use crate::render::text::markdown;
use crate::resolve::{self, Placed};
use crate::stage::Stage;
use crate::{ask, evidence, verbs};

/// Pods that a lab is started with at most.
const MAX_PODS: usize = 64;
/// Connections that `isolate --prove` sends packets for.
const ISOLATION_CELLS: usize = 160;
/// Transports that stand for all others beside those that pods serve and claims list.
const USUAL: [(Protocol, Option<u16>); 4] = [
    (Protocol::TCP, Some(80)),
    (Protocol::TCP, Some(443)),
    (Protocol::UDP, Some(53)),
    (Protocol::ICMP, None),
];

/// What is to be applied.
struct Play {
    /// Everything but pods and policies.
    ground: Vec<Value>,
    pods: Vec<Value>,
    policies: Vec<Value>,
    catalogue: Vec<(Protocol, Option<u16>)>,
    left_out: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(command: Prove, input: Input, about: About) -> anyhow::Result<Exit> {
    let claims = about.claims;
    let play = Play::of(&input, &claims, &[])?;
    let is_inside = |place: &Place| {
        about
            .namespace
            .as_ref()
            .is_none_or(|name| place.pod.as_ref().is_some_and(|pod| *pod.namespace == **name))
    };
    let wanted = |from: &Place, to: &Place| is_inside(from) || is_inside(to);
    let draw = Draw { most: about.cells, seed: command.seed, wanted: &wanted };
    let proof = match staged(&play, &claims, &draw).await? {
        Ok(proof) => proof,
        Err(interrupted) => return Ok(interrupted),
    };
    print_proof(command.output, &proof)?;
    if let Some(out) = &command.out {
        let mut not_proved = play.left_out.clone();
        not_proved.push("images are not run: pods answer on the ports that their manifests declare".into());
        let unseen = proof.reports.iter().filter(|r| r.truths.observed == Some(ClaimState::Undecided));
        not_proved.extend(unseen.map(|r| format!("claim {}: not every packet could be sent", r.id)));
        evidence::write(out, &proof.placed, claims, proof.reports.clone(), not_proved)?;
    }
    Ok(input.exit(proof.exit()))
}

/// `sluice isolate --prove`: manifests with the isolation's policies in a lab, and packets from and to the namespace.
pub(crate) async fn isolation(input: &Input, namespace: &str, policies: &[Value]) -> anyhow::Result<Exit> {
    let play = Play::of(input, &[], policies)?;
    let is_inside = |place: &Place| place.pod.as_ref().is_some_and(|pod| *pod.namespace == *namespace);
    let wanted = |from: &Place, to: &Place| is_inside(from) || is_inside(to);
    let draw = Draw { most: ISOLATION_CELLS, seed: None, wanted: &wanted };
    let proof = match staged(&play, &[], &draw).await? {
        Ok(proof) => proof,
        Err(interrupted) => return Ok(interrupted),
    };
    if let Some(cells) = &proof.cells {
        eprintln!("proof: {}", cells.summary());
        for line in cells.contradictions.iter().chain(&cells.inconclusive) {
            eprintln!("proof: {line}");
        }
    }
    Ok(proof.exit())
}

/// What packets said.
struct Proof {
    reports: Vec<ClaimReport>,
    cells: Option<Cells>,
    placed: Placed,
}

impl Proof {
    /// 1 for a contradiction, else 3 if something is not proved, else 0: what packets say is what the objects say.
    fn exit(&self) -> Exit {
        let undecided = |r: &ClaimReport| r.truths.observed == Some(ClaimState::Undecided);
        let cells = self.cells.iter();
        let (mut contradicted, mut incomplete) = (false, false);
        for report in &self.reports {
            contradicted |= !report.contradictions.is_empty() && !undecided(report);
            incomplete |= undecided(report) || report.truths.declared == Some(ClaimState::Undecided);
        }
        for cells in cells {
            contradicted |= !cells.contradictions.is_empty();
            incomplete |= !cells.inconclusive.is_empty() || cells.probes.is_empty();
        }
        match (contradicted, incomplete) {
            (true, _) => Exit::No,
            (false, true) => Exit::Undecided,
            (false, false) => Exit::Yes,
        }
    }
}

/// Starts a lab, asks, and ends it; the exit code where somebody interrupted it.
async fn staged(play: &Play, claims: &[Claim], draw: &Draw<'_>) -> anyhow::Result<Result<Proof, Exit>> {
    for line in &play.left_out {
        eprintln!("note: {line}");
    }
    let stop = crate::up::interrupted();
    tokio::select! {
        done = perform(play, claims, draw) => done.map(Ok),
        exit = stop => {
            eprintln!("interrupted; everything of the lab is gone");
            Ok(Err(exit))
        }
    }
}

async fn perform(play: &Play, claims: &[Claim], draw: &Draw<'_>) -> anyhow::Result<Proof> {
    progress::say("starting two nodes, the API, the agents and a host outside");
    let stage = Stage::start(2).await?;
    let outcome = on_stage(&stage, play, claims, draw).await;
    stage.end().await;
    outcome
}

async fn on_stage(stage: &Stage, play: &Play, claims: &[Claim], draw: &Draw<'_>) -> anyhow::Result<Proof> {
    let programming = Programming::follow(stage).await?;
    let writing = verbs::Writing::merging();
    for object in play.ground.iter().chain(&play.pods) {
        verbs::apply_object(&stage.client, object, &writing).await?;
    }
    progress::say(&format!("waiting for {} pods", play.pods.len()));
    programming.pods_ready(play.pods.len()).await?;
    let mut revisions: BTreeMap<String, u64> = BTreeMap::new();
    for object in &play.policies {
        let done = verbs::apply_object(&stage.client, object, &writing).await?;
        let latest = revisions.entry(done.resource).or_default();
        *latest = done.revision.max(*latest);
    }
    for (resource, revision) in revisions {
        programming.reached(&resource, revision).await?;
    }
    progress::say("sending packets");
    let (world, _) = input::world_of(&stage.client).await?;
    let asked: Vec<Asked<'_>> =
        claims.iter().map(|claim| Asked { claim, expected: None, observed: true }).collect();
    let reports = demo::judge_asked(stage, world.clone(), &asked, &play.catalogue, "manifests")?;
    let cells = match draw.most {
        0 => None,
        _ => Some(prove_cells(stage, world.clone(), &play.catalogue, draw)?),
    };
    Ok(Proof { reports, cells, placed: resolve::place_cluster(world) })
}

impl Play {
    /// The manifests, and policies beside them.
    fn of(input: &Input, claims: &[Claim], more: &[Value]) -> anyhow::Result<Play> {
        let world = &input.placed.world;
        let mut play = Play {
            ground: Vec::new(),
            pods: Vec::new(),
            policies: more.to_vec(),
            catalogue: USUAL.to_vec(),
            left_out: Vec::new(),
        };
        let mut namespaces: BTreeSet<String> =
            world.pods.keys().map(|key| key.namespace.to_string()).collect();
        let mut accounts: BTreeSet<(String, String)> = BTreeSet::new();
        for object in &input.objects {
            let Some(key) = sluice_kinds::model_key(&object.value) else { continue };
            namespaces.extend((!key.namespace.is_empty()).then(|| key.namespace.to_string()));
            match key.kind {
                Kind::Pod => {
                    let pod = world.pods.values().find(|p| {
                        *p.key.namespace == *key.namespace && *p.key.name == *key.name && !p.finished
                    });
                    match pod {
                        Some(pod) if pod.host_network => {
                            play.left_out
                                .push(format!("{} uses the network of its node and is not started", pod.key));
                        }
                        Some(pod) => {
                            accounts.insert((pod.key.namespace.to_string(), pod.service_account.to_string()));
                            play.pods.push(stand_in(pod, object));
                        }
                        None => {} // its pods are there, or it has finished
                    }
                }
                Kind::Node | Kind::EndpointSlice | Kind::Profile | Kind::ResolvedName => {}
                Kind::Namespace => {
                    namespaces.remove(&object.name);
                    play.ground.push(plain(&object.value));
                }
                Kind::ServiceAccount
                | Kind::Tier
                | Kind::GlobalNetworkSet
                | Kind::NetworkSet
                | Kind::Service
                | Kind::HostEndpoint => play.ground.push(plain(&object.value)),
                Kind::KubernetesNetworkPolicy
                | Kind::NetworkPolicy
                | Kind::GlobalNetworkPolicy
                | Kind::KubernetesClusterNetworkPolicy
                | Kind::AdminNetworkPolicy
                | Kind::BaselineAdminNetworkPolicy
                | Kind::StagedGlobalNetworkPolicy
                | Kind::StagedNetworkPolicy
                | Kind::StagedKubernetesNetworkPolicy
                | Kind::ProjectIsolation => play.policies.push(plain(&object.value)),
            }
        }
        if play.pods.is_empty() || play.pods.len() > MAX_PODS {
            bail!("a lab is started with 1 to {MAX_PODS} pods; these manifests have {}", play.pods.len());
        }
        play.complete(namespaces, accounts);
        play.add_ports(claims);
        // what shows the verdicts is asked about too
        let snapshot = input.placed.snapshot();
        let witnesses =
            claims.iter().filter_map(|claim| sluice_analysis::judge_claim(&snapshot, claim).witness);
        for flow in witnesses.map(|witness| witness.flow) {
            let entry = (flow.protocol(), flow.destination_port());
            if !play.catalogue.contains(&entry) {
                play.catalogue.push(entry);
            }
        }
        Ok(play)
    }

    /// Namespaces and accounts that are named and not there.
    fn complete(&mut self, namespaces: BTreeSet<String>, accounts: BTreeSet<(String, String)>) {
        let named = |kind: &str, name: &str, namespace: Option<&str>, ground: &[Value]| {
            ground.iter().any(|o| {
                o["kind"] == kind
                    && o["metadata"]["name"] == name
                    && namespace.is_none_or(|n| o["metadata"]["namespace"] == n)
            })
        };
        for (namespace, name) in accounts {
            if name != "default" && !named("ServiceAccount", &name, Some(&namespace), &self.ground) {
                self.ground.push(json!({
                    "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name},
                }));
            }
        }
        for name in namespaces {
            if !named("Namespace", &name, None, &self.ground) {
                self.ground
                    .push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
            }
        }
        self.ground.sort_by_key(|object| object["kind"] != "Namespace");
    }

    /// What pods serve and claims list is asked about too.
    fn add_ports(&mut self, claims: &[Claim]) {
        let served = self.pods.iter().flat_map(|pod| {
            let ports = pod["spec"]["containers"][0]["ports"].as_array().cloned().unwrap_or_default();
            ports.into_iter().filter_map(|port| {
                let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
                Some((port["protocol"].as_str().unwrap_or("TCP").parse().ok()?, Some(number)))
            })
        });
        let mut all: BTreeSet<(Protocol, Option<u16>)> = served.collect();
        for port in claims.iter().flat_map(|claim| &claim.ports) {
            if let sluice_model::PortMatch::Range(range) = &port.port {
                all.insert((port.protocol, Some(range.first())));
            }
        }
        self.catalogue.extend(all.into_iter().filter(|entry| !USUAL.contains(entry)));
    }
}

/// An object without what only its own cluster knows.
fn plain(value: &Value) -> Value {
    let mut value = value.clone();
    if value["kind"] == "Service" && value["spec"]["clusterIP"] != "None" {
        // the lab gives addresses of its own range
        if let Some(Value::Object(spec)) = value.get_mut("spec") {
            for name in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
                spec.shift_remove(name);
            }
        }
    }
    if let Value::Object(fields) = &mut value {
        fields.shift_remove("status");
    }
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        let own = [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "managedFields",
            "ownerReferences",
            "selfLink",
        ];
        for name in own {
            metadata.shift_remove(name);
        }
    }
    value
}

/// A pod that answers on the ports that a pod or a template declares.
fn stand_in(pod: &Pod, object: &LoadedObject) -> Value {
    let template = ["/spec/jobTemplate/spec/template/spec", "/spec/template/spec", "/spec"];
    let spec = template.iter().find_map(|path| object.value.pointer(path));
    let containers = spec.and_then(|s| s["containers"].as_array()).cloned().unwrap_or_default();
    let ports: Vec<Value> =
        containers.iter().filter_map(|c| c["ports"].as_array()).flatten().cloned().collect();
    let of = |protocol: &str| -> Vec<String> {
        let is = |p: &&Value| p["protocol"].as_str().unwrap_or("TCP") == protocol;
        ports.iter().filter(is).filter_map(|p| p["containerPort"].as_u64()).map(|n| n.to_string()).collect()
    };
    let (tcp, udp) = (of("TCP"), of("UDP"));
    let mut arguments = Vec::new();
    for (flag, ports) in [("--http", tcp), ("--udp", udp)] {
        if !ports.is_empty() {
            arguments.extend([flag.to_owned(), ports.join(",")]);
        }
    }
    let image = if arguments.is_empty() { "sluice.dev/pause" } else { "sluice.dev/serve" };
    let labels: BTreeMap<&str, &str> = pod.labels.iter().collect();
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| {
            let mut port = port.clone();
            if let Value::Object(fields) = &mut port {
                fields.retain(|name, _| matches!(name.as_str(), "name" | "containerPort" | "protocol"));
            }
            port
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": &*pod.key.namespace, "name": pod.key.name.replace('/', "-"), "labels": labels},
        "spec": {
            "serviceAccountName": &*pod.service_account,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": image, "args": arguments, "ports": ports}],
        },
    })
}

fn print_proof(output: DiffOutput, proof: &Proof) -> anyhow::Result<()> {
    let style = Style::of_stdout();
    let reports = &proof.reports;
    let word = |state: Option<ClaimState>| state.map_or("not asked", ClaimState::word);
    match output {
        DiffOutput::Json | DiffOutput::Yaml => {
            let mut object =
                json!({"apiVersion": sluice_report::API_VERSION, "kind": "ProofReport", "claims": reports});
            if let Some(cells) = &proof.cells {
                object["cells"] = serde_json::to_value(cells)?;
            }
            data::print(if output == DiffOutput::Yaml { Form::Yaml } else { Form::Json }, &object);
        }
        DiffOutput::Md => {
            println!(
                "| claim | says | declared | programmed | observed | packets |\n|---|---|---|---|---|---|"
            );
            for r in reports {
                let t = &r.truths;
                let cells =
                    [&r.id, &r.text, word(t.declared), word(t.programmed), word(t.observed)].map(markdown);
                println!("| {} | {} |", cells.join(" | "), r.probes.len());
            }
            if let Some(cells) = &proof.cells {
                println!("\n{}.", markdown(&cells.summary()));
            }
        }
        DiffOutput::Table => {
            for r in reports {
                let t = &r.truths;
                let colour = if r.contradictions.is_empty() { Colour::Blue } else { Colour::Vermilion };
                let state = style.paint(colour, &format!("{:16}", word(t.declared)));
                println!("{state} {}: {}", r.id, r.text);
                println!(
                    "{:16} programmed: {}; observed: {} by {} packets",
                    "",
                    word(t.programmed),
                    word(t.observed),
                    r.probes.len()
                );
                println!("{:16} {}", "", r.result.reason);
                for line in &r.contradictions {
                    println!("{}", style.paint(Colour::Vermilion, &format!("!                {line}")));
                }
            }
            if let Some(cells) = &proof.cells {
                println!("{:16} {}", "matrix", cells.summary());
                for line in cells.contradictions.iter().chain(&cells.inconclusive) {
                    println!("{}", style.paint(Colour::Vermilion, &format!("!                {line}")));
                }
            }
        }
    }
    Ok(())
}

/// What is to be proved.
pub(crate) struct About {
    claims: Vec<Claim>,
    /// Connections of the matrix that packets are sent for.
    cells: usize,
    /// Only those from or to the pods of a namespace.
    namespace: Option<String>,
}

/// Reads what the command names, before anything is started.
pub(crate) fn prepare(command: &Prove) -> anyhow::Result<(Input, About)> {
    let input = input::read(&command.source)?;
    let mut about = About { claims: Vec::new(), cells: command.cells, namespace: None };
    match command.what.as_deref() {
        Some(what) if what == "-" || Path::new(what).exists() => {
            about.claims = ask::claims(Path::new(what), &command.source.namespace())?;
        }
        Some(name) => {
            let namespaces = resolve::namespaces(&input.placed.world);
            if !namespaces.contains(name) {
                let hint = nearest::did_you_mean(name, namespaces.iter().map(String::as_str));
                bail!("{name:?} is neither a file with claims nor a namespace{hint}");
            }
            about.namespace = Some(name.to_owned());
            if about.cells == 0 {
                about.cells = ISOLATION_CELLS;
            }
        }
        None => about.claims = ask::claims_of(&input.objects)?,
    }
    if about.claims.is_empty() && about.cells == 0 {
        bail!(
            "there is no ConnectivityClaim to prove; name a file with claims or a namespace, or say --cells N"
        );
    }
    Ok((input, about))
}
