//! `sluice bench analysis`: questions about a whole cluster, with every pod local.
//!
//! The cluster is that of workload `agent`: 1,000 namespaces, 100,000 pods of twelve labels, 10,000 policies. Each number is taken
//! after load: objects read, plan compiled, indices made. What the fast ways answer is compared with the evaluator on the way.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use sluice_addr::Family;
use sluice_analysis::{Differ, Judge, LintOptions, Matrix, Snapshot, explain, lint};
use sluice_engine::{Engine, Scope};
use sluice_model::{Action, Circumstances, Object, ObjectDelta, PodKey, Policy, Rule, RuleBody, World};
use sluice_report::Answer;

use crate::agreement::Drawer;
use crate::measure::quantile;
use crate::proc::{peak, processor_seconds, resident};
use crate::shape::Size;
use crate::shape::cluster::{Cluster, EDITABLE, Edit};
use crate::{BenchError, Options};

/// Policies that are edited.
const EDITS: usize = 20;
/// Connections that are asked about.
const QUESTIONS: u64 = 1_000;
/// Connections that are judged in a row, and how often.
const FLOWS: u64 = 100_000;
const ROUNDS: u64 = 20;
/// Repeats of what is short.
const REPEATS: usize = 5;

/// What analysis needs.
#[derive(Clone, Debug, Serialize)]
pub struct AnalysisReport {
    /// The size of the cluster; targets are judged at 1 only.
    pub scale: f64,
    /// Pods.
    pub pods: usize,
    /// Policies.
    pub policies: usize,
    /// The questions.
    pub rows: Vec<AnalysisRow>,
}

/// One question.
#[derive(Clone, Debug, Serialize)]
pub struct AnalysisRow {
    /// What is asked.
    pub question: String,
    /// The median, in the unit.
    pub p50: f64,
    /// The 99th percentile, or the most of few.
    pub p99: f64,
    /// `ms`, `MiB` or `flows/s`.
    pub unit: &'static str,
    /// What it has to stay below (above for `flows/s`).
    pub target: Option<f64>,
    /// Does it?
    pub met: Option<bool>,
    /// What was found, so that a number for nothing would be seen.
    pub found: String,
}

impl AnalysisReport {
    /// A report without rows; targets are judged at scale 1 only.
    pub fn new(scale: f64) -> Self {
        AnalysisReport { scale, pods: 0, policies: 0, rows: Vec::new() }
    }

    /// Adds the values that were measured for a question, in `unit` (`ms`, `MiB`, `flows/s`).
    pub fn add(
        &mut self,
        question: &str,
        unit: &'static str,
        mut values: Vec<f64>,
        target: Option<f64>,
        found: String,
    ) {
        values.sort_by(f64::total_cmp);
        let (p50, p99) = (quantile(&values, 0.5), quantile(&values, 0.99));
        let target = target.filter(|_| self.scale == Options::FULL);
        let met = target.map(|target| if unit == "flows/s" { p50 > target } else { p50 < target });
        self.rows.push(AnalysisRow { question: question.into(), p50, p99, unit, target, met, found });
    }

    /// The report as a table.
    pub fn table(&self) -> String {
        let mut out = format!("{} pods, {} policies\n", self.pods, self.policies);
        out.push_str(&format!(
            "{:36} {:>12} {:>12} {:8} {:>10} {:5} FOUND\n",
            "QUESTION", "P50", "P99", "UNIT", "TARGET", "MET"
        ));
        for row in &self.rows {
            let target = row.target.map_or(String::new(), |target| format!("{target}"));
            let met = row.met.map_or("", |met| if met { "yes" } else { "no" });
            out.push_str(&format!(
                "{:36} {:>12.3} {:>12.3} {:8} {:>10} {:5} {}\n",
                row.question, row.p50, row.p99, row.unit, target, met, row.found
            ));
        }
        out
    }
}

/// What one of `count` repeats took of a processor, where other processes share it.
struct Shared(Option<f64>);

impl Shared {
    fn start() -> Self {
        Shared(processor_seconds())
    }

    fn each(&self, count: usize) -> String {
        let used =
            self.0.zip(processor_seconds()).map(|(start, end)| (end - start) * 1e3 / count.max(1) as f64);
        used.map_or(String::new(), |used| format!("; {used:.1} ms of processor each"))
    }
}

fn milliseconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64() * 1e3, result)
}

/// Asks every question of a cluster of this size; 1 is the published size.
pub fn analysis(scale: f64, seed: u64) -> Result<AnalysisReport, BenchError> {
    let size = Size { scale, seed };
    let cluster = Cluster::large(size);
    let mut report = AnalysisReport::new(scale);
    (report.pods, report.policies) = (cluster.pods(), cluster.policies());
    let mut engine = Engine::new(Scope::Cluster);
    let mut world = World::default();
    let objects: Vec<Object> = cluster.clone().instance(Scope::Cluster).objects.collect();
    for object in &objects {
        world.apply(ObjectDelta::Upsert(object.clone()));
    }
    let (load, ()) = milliseconds(|| {
        for object in objects {
            engine.apply(ObjectDelta::Upsert(object));
        }
        engine.flush();
    });
    let found = format!("{} legs, {} classes", engine.plan().legs.len(), engine.plan().classes.len());
    report.add("load: objects to plan", "ms", vec![load], None, found);
    all_pairs(&mut report, &engine)?;
    let plan = engine.plan().clone(); // of the world as it is; edits stay
    edits(&mut report, &mut engine, &cluster)?;
    questions(&mut report, world, plan, Drawer::new(cluster.instance(Scope::Cluster))?)?;
    Ok(report)
}

fn all_pairs(report: &mut AnalysisReport, engine: &Engine) -> Result<(), BenchError> {
    let before = resident()?;
    let (first, matrix) = milliseconds(|| Matrix::new(engine.plan()));
    let kept = resident()? - before;
    let totals = matrix.totals(Family::V4);
    let found = format!(
        "{} pairs: {} open, {} restricted, {} closed; {} groups",
        totals.pairs(),
        totals.open,
        totals.restricted,
        totals.closed,
        matrix.size().0
    );
    if totals.restricted == 0 || totals.closed == 0 {
        return Err(BenchError::Empty("policies restrict nothing".into()));
    }
    drop(matrix);
    let mut times = vec![first];
    let shared = Shared::start();
    times.extend((1..REPEATS).map(|_| milliseconds(|| black_box(Matrix::new(engine.plan()))).0));
    let found = found + &shared.each(REPEATS - 1);
    report.add("all pairs", "ms", times, Some(300.0), found);
    report.add("all pairs: memory of the matrix", "MiB", vec![kept.max(0.0)], None, String::new());
    report.add(
        "all pairs: peak of the process",
        "MiB",
        vec![peak()?],
        Some(500.0),
        "engine, objects and input included".into(),
    );
    Ok(())
}

/// Somebody edits a policy: in one namespace a port is opened to those who already may send there; in another all egress is.
fn edits(report: &mut AnalysisReport, engine: &mut Engine, cluster: &Cluster) -> Result<(), BenchError> {
    let policies = |space: usize| cluster.policies_of(space);
    let spaces = || (0..EDITS).map(|number| number * cluster.namespaces() / EDITS);
    let ports = spaces().filter_map(|space| {
        let editable = policies(space).nth(EDITABLE)?;
        Some(cluster.edited_policy(editable, Edit::Port(5432)))
    });
    let opened = spaces().map(|space| {
        // the first policy of a namespace isolates it in both directions
        let mut policy = Policy::clone(&cluster.policy(policies(space).start));
        let reference = policy.reference();
        let everything = RuleBody::Kubernetes { peers: None, ports: None };
        policy.egress = Some(vec![Rule { action: Action::Allow, body: everything, reference }]);
        Arc::new(policy)
    });
    diffs(report, engine, "diff after one policy edit: a port", ports.collect())?;
    diffs(report, engine, "diff: a namespace's egress opened", opened.take(EDITS / 4).collect())
}

fn diffs(
    report: &mut AnalysisReport,
    engine: &mut Engine,
    question: &str,
    edited: Vec<Arc<Policy>>,
) -> Result<(), BenchError> {
    let mut differ = Differ::new(engine.plan().clone()); // indices are made at load
    let (mut times, mut flushes, mut rows, mut pairs) = (Vec::new(), Vec::new(), 0, 0);
    let nameless = |_: &PodKey| None;
    let mut used = 0.0;
    for policy in edited {
        let (flush, delta) = milliseconds(|| {
            engine.apply(ObjectDelta::Upsert(Object::Policy(policy)));
            engine.flush()
        });
        let Some(delta) = delta else { continue };
        let start = processor_seconds();
        let (time, found) = milliseconds(|| differ.peek(engine.plan(), &delta, &nameless));
        used += start.zip(processor_seconds()).map_or(0.0, |(start, end)| end - start);
        rows += found.changes.len();
        pairs += found.changes.iter().map(|change| change.pairs).sum::<u64>();
        times.push(time);
        flushes.push(flush);
        differ.follow(engine.plan(), &delta);
    }
    if rows == 0 {
        return Err(BenchError::Empty("edits change no connection".into()));
    }
    flushes.sort_by(f64::total_cmp);
    let flush = quantile(&flushes, 0.5);
    let each = used * 1e3 / times.len() as f64;
    let found = format!(
        "{} edits, {rows} rows, {pairs} pairs; {each:.1} ms of processor each; the engine's flush {flush:.3} ms",
        times.len()
    );
    report.add(question, "ms", times, Some(50.0), found);
    Ok(())
}

fn questions(
    report: &mut AnalysisReport,
    world: World,
    plan: sluice_plan::Plan,
    drawer: Drawer,
) -> Result<(), BenchError> {
    let before = resident()?;
    let (time, findings) = milliseconds(|| lint(&world, &LintOptions::default()));
    // objects, engine and plans stay in memory beside it
    let most = peak()? - before;
    let found = format!("{} findings; at most {most:.0} MiB of its own", findings.len());
    report.add("lint", "ms", vec![time], None, found);
    let snapshot = Snapshot::from_parts(world, plan);
    let circumstances = Circumstances::default();
    explain(&snapshot, &drawer.flow(0), &circumstances); // makes the indices
    let (mut cans, mut explains, mut allowed) = (Vec::new(), Vec::new(), 0);
    for number in 0..QUESTIONS {
        let flow = drawer.flow(number);
        let (time, can) = milliseconds(|| snapshot.can(&flow));
        cans.push(time);
        let (time, why) = milliseconds(|| explain(&snapshot, &flow, &circumstances));
        explains.push(time);
        if why.verdict != can {
            let (plan, law) = (can.to_string(), why.text());
            return Err(BenchError::Disagreement { flow: flow.to_string(), plan, law });
        }
        allowed += u32::from(can == Answer::Allow);
    }
    let found = format!("{allowed} of {QUESTIONS} allowed");
    report.add("can", "ms", cans, Some(1.0), found);
    report.add("explain", "ms", explains, Some(1.0), String::new());
    let (prepare, judge) = milliseconds(|| Judge::new(snapshot.plan()));
    let flows: Vec<_> = (0..FLOWS).map(|number| drawer.flow(number)).collect();
    let mut rates = Vec::new();
    let mut allowed = 0;
    let shared = Shared::start();
    for _ in 0..ROUNDS {
        let (time, count) = milliseconds(|| {
            flows.iter().filter(|flow| judge.judge(flow).verdict == sluice_plan::Verdict::Allow).count()
        });
        allowed = count;
        rates.push(FLOWS as f64 / (time / 1e3));
    }
    let found = format!(
        "{allowed} of {FLOWS} allowed; prepared in {prepare:.0} ms; one thread{}",
        shared.each(ROUNDS as usize)
    );
    report.add("eval, evaluation alone", "flows/s", rates, Some(3_000_000.0), found);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_cluster_answers_every_question() {
        let report = analysis(0.004, 1).expect("every question has an answer");
        assert_eq!(report.rows.len(), 10, "{}", report.table());
        assert!(report.rows.iter().all(|row| row.target.is_none()), "targets are for the full size");
    }
}
