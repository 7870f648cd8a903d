//! `sluice evidence`: what was claimed, what is true of it and from what that was computed, as a bundle that can be checked.
//!
//! `evidence.json` is the bundle: versions, the objects as the law reads them (no images, no environment, no secrets), the
//! claims, their results, the digest of the compiled plan, and a digest of all of it. `evidence.md` says the same to people.

use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sluice_analysis::Snapshot;
use sluice_model::{Object, ObjectDelta, World};
use sluice_report::{Claim, ClaimReport, ClaimResult};

use crate::args::{self, DiffOutput, Evidence};
use crate::ask;
use crate::exit::Exit;
use crate::input;
use crate::render::data::{self, Form};
use crate::render::text::markdown;
use crate::resolve::Placed;

/// Bytes of a bundle that are read.
const MAX_BUNDLE: u64 = 1 << 30;

/// A bundle, without its digest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    api_version: String,
    kind: String,
    /// When (RFC 3339, UTC).
    created: String,
    sluice: String,
    kernel: String,
    /// SHA-256 of the plan's text.
    plan_digest: String,
    objects: Vec<Object>,
    /// Every namespace that exists is among the objects, as in what a cluster says (semantics 3.7).
    #[serde(default)]
    namespaces_are_complete: bool,
    claims: Vec<JudgedClaim>,
    /// Packets that were sent, if `prove` made the bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    proofs: Vec<ClaimReport>,
    /// What nobody should take for proved.
    not_proved: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct JudgedClaim {
    claim: Claim,
    result: ClaimResult,
}

/// Runs the command.
pub(crate) fn run(command: &Evidence) -> anyhow::Result<Exit> {
    match (&command.bundle, &command.claims, &command.out) {
        (Some(args::Bundle::Check { bundle }), ..) => check(bundle),
        (Some(args::Bundle::Show { bundle, output }), ..) => show(bundle, *output),
        (None, Some(claims), Some(out)) => {
            let input = input::read(&command.source)?;
            let claims = ask::claims(claims, &command.source.namespace())?;
            if claims.is_empty() {
                bail!("there is no ConnectivityClaim to give evidence for");
            }
            let mut not_proved =
                vec!["no packet was sent: the verdicts are computed from the objects".to_owned()];
            if !input.placed.assumed.is_empty() {
                let count = input.placed.assumed.len();
                not_proved.push(format!("{count} pods have no address yet; addresses were assumed for them"));
            }
            let exit = write(out, &input.placed, claims, Vec::new(), not_proved)?;
            Ok(input.exit(exit))
        }
        _ => bail!(
            "say what the evidence is for and where it goes: CLAIMS --out FOLDER; or show FOLDER, check FOLDER"
        ),
    }
}

/// Writes a bundle for claims about a world. The exit code is that of the claims.
pub(crate) fn write(
    out: &Path,
    placed: &Placed,
    claims: Vec<Claim>,
    proofs: Vec<ClaimReport>,
    not_proved: Vec<String>,
) -> anyhow::Result<Exit> {
    let snapshot = placed.snapshot();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let bundle = Bundle {
        api_version: sluice_report::API_VERSION.into(),
        kind: "Evidence".into(),
        created: sluice_lab::rfc3339(std::time::SystemTime::now()),
        sluice: env!("CARGO_PKG_VERSION").into(),
        kernel: kernel.trim().into(),
        plan_digest: plan_digest(&snapshot),
        objects: placed.world.objects(),
        namespaces_are_complete: placed.namespaces_are_complete,
        claims: judged(&snapshot, claims),
        proofs,
        not_proved,
    };
    let mut value = serde_json::to_value(&bundle)?;
    let digest = digest(&value)?;
    value["digest"] = Value::from(digest.clone());
    std::fs::create_dir_all(out).with_context(|| format!("cannot make folder {}", out.display()))?;
    let page = page(&bundle, &digest);
    for (name, text) in
        [("evidence.json", serde_json::to_string_pretty(&value)? + "\n"), ("evidence.md", page)]
    {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", out.join("evidence.json").display());
    Ok(ask::exit_of_claims(bundle.claims.iter().map(|c| c.result.state)))
}

fn judged(snapshot: &Snapshot, claims: Vec<Claim>) -> Vec<JudgedClaim> {
    let judge = |claim| JudgedClaim { result: sluice_analysis::judge_claim(snapshot, &claim), claim };
    claims.into_iter().map(judge).collect()
}

fn plan_digest(snapshot: &Snapshot) -> String {
    hex(&Sha256::digest(snapshot.plan().to_string().as_bytes()))
}

/// SHA-256 of the compact JSON text, without the field that holds it.
fn digest(value: &Value) -> anyhow::Result<String> {
    let mut value = value.clone();
    if let Value::Object(fields) = &mut value {
        fields.shift_remove("digest");
    }
    Ok(hex(&Sha256::digest(serde_json::to_vec(&value)?)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads a bundle as data.
fn read(path: &Path) -> anyhow::Result<(String, Value)> {
    let file = if path.is_dir() { path.join("evidence.json") } else { path.to_owned() };
    let name = file.display();
    let mut text = Vec::new();
    std::fs::File::open(&file)
        .and_then(|f| f.take(MAX_BUNDLE).read_to_end(&mut text))
        .with_context(|| format!("cannot read {name}"))?;
    let value: Value = serde_json::from_slice(&text).with_context(|| format!("{name} is no evidence"))?;
    if value["kind"] != "Evidence" {
        bail!("{name} is no evidence");
    }
    Ok((name.to_string(), value))
}

/// Prints what a bundle says. The exit code is that of its claims; whether they are true says `check`.
fn show(path: &Path, output: DiffOutput) -> anyhow::Result<Exit> {
    let (name, value) = read(path)?;
    let digest = value["digest"].as_str().unwrap_or_default().to_owned();
    let bundle: Bundle =
        serde_json::from_value(value.clone()).with_context(|| format!("{name} is no evidence"))?;
    match output {
        DiffOutput::Json => data::print(Form::Json, &value),
        DiffOutput::Yaml => data::print(Form::Yaml, &value),
        DiffOutput::Md => print!("{}", page(&bundle, &digest)),
        DiffOutput::Table => {
            for JudgedClaim { claim, result } in &bundle.claims {
                println!("{:16} {}: {}", result.state.word(), claim.name, claim.text);
                println!("{:16} {}", "", result.reason);
            }
            let packets: usize = bundle.proofs.iter().map(|report| report.probes.len()).sum();
            println!(
                "{:16} {} objects, {packets} packets, made {} by sluice {}",
                "from",
                bundle.objects.len(),
                bundle.created,
                bundle.sluice
            );
            for line in &bundle.not_proved {
                println!("{:16} {line}", "not proved");
            }
        }
    }
    Ok(ask::exit_of_claims(bundle.claims.iter().map(|c| c.result.state)))
}

/// Reads a bundle and computes everything in it again. Where another version compiled it, what it compiles to cannot be compared.
fn check(path: &Path) -> anyhow::Result<Exit> {
    let (name, value) = read(path)?;
    let stated = value["digest"].as_str().unwrap_or_default().to_owned();
    let (mut wrong, mut cannot) = (Vec::new(), false);
    if digest(&value)? != stated {
        wrong.push("the digest is not that of the content: it was changed".to_owned());
    }
    let bundle: Bundle = serde_json::from_value(value).with_context(|| format!("{name} is no evidence"))?;
    let mut world = World::default();
    for object in bundle.objects {
        world.apply(ObjectDelta::Upsert(object));
    }
    let snapshot = match bundle.namespaces_are_complete {
        true => Snapshot::of_cluster(world),
        false => Snapshot::new(world),
    };
    if plan_digest(&snapshot) != bundle.plan_digest {
        if bundle.sluice != env!("CARGO_PKG_VERSION") {
            cannot = true;
            println!(
                "? version {} compiled another plan; this is {}",
                bundle.sluice,
                env!("CARGO_PKG_VERSION")
            );
        } else {
            wrong.push("the plan is not the one that the objects compile to".to_owned());
        }
    }
    for claim in &bundle.claims {
        let now = sluice_analysis::judge_claim(&snapshot, &claim.claim);
        if now.state != claim.result.state {
            wrong.push(format!(
                "claim {}: stated is {}, computed is {}",
                claim.claim.name, claim.result.state, now.state
            ));
        }
    }
    for line in &wrong {
        println!("x {line}");
    }
    let count = bundle.claims.len();
    Ok(match (wrong.is_empty(), cannot) {
        (false, _) => Exit::No,
        (true, true) => {
            println!("? the plan cannot be compared; {count} claims computed again from the objects");
            Exit::Undecided
        }
        (true, false) => {
            println!("+ valid: {count} claims computed again from the objects");
            Exit::Yes
        }
    })
}

fn page(bundle: &Bundle, digest: &str) -> String {
    let mut text =
        String::from("# Evidence\n\n| claim | says | is | because | witness |\n|---|---|---|---|---|\n");
    for JudgedClaim { claim, result } in &bundle.claims {
        let witness = result.witness.as_ref().map(ToString::to_string).unwrap_or_default();
        let cells = [&*claim.name, &*claim.text, result.state.word(), &result.reason, &witness].map(markdown);
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    if !bundle.proofs.is_empty() {
        text.push_str("\n## Packets\n\n| claim | from | to | packet | seen |\n|---|---|---|---|---|\n");
        for (report, probe) in bundle.proofs.iter().flat_map(|r| r.probes.iter().map(move |p| (r, p))) {
            let (flow, seen) = (probe.flow.to_string(), format!("{:?}", probe.observation));
            let cells = [&report.id, &probe.from, &probe.to, &flow, &seen].map(|cell| markdown(cell));
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
    }
    text.push_str("\n## Not proved\n\n");
    for line in &bundle.not_proved {
        let _ = writeln!(text, "- {}", markdown(line));
    }
    let _ = writeln!(
        text,
        "\n## From what\n\n- sluice {}, Linux {}, {} objects\n- plan {}\n- evidence.json {digest} (SHA-256 of the content without its digest)\n- `sluice evidence check .` computes it again",
        bundle.sluice,
        bundle.kernel,
        bundle.objects.len(),
        bundle.plan_digest
    );
    text
}
