//! Measuring one workload, in a process of its own.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sluice_engine::Engine;
use sluice_model::ObjectDelta;
use sluice_plan::Simulator;

use crate::agreement::Drawer;
use crate::shape::{Instance, Size};
use crate::workload::{CLOCK, COMPILE, Extra, HELD, LOOKUP, MEMORY, STATE, Workload};
use crate::{BenchError, Options, events, proc};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Time.
    Seconds,
    /// Memory.
    MiB,
}

/// One measure: the distribution of what was observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What was measured.
    pub name: String,
    /// The unit of all numbers but [`Measure::used`].
    pub unit: Unit,
    /// How many observations.
    pub count: usize,
    /// Half are at most this.
    pub p50: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// The most elements of a plan that one change touched.
    pub elements: Option<usize>,
    /// The 99th percentile of the part of its allowance that a change used, where allowance grows with what it touched.
    pub used: Option<f64>,
}

impl Measure {
    /// The distribution of `observed`, of which there is at least one.
    pub(crate) fn new(name: &str, unit: Unit, mut observed: Vec<f64>) -> Self {
        observed.sort_by(f64::total_cmp);
        Measure {
            name: name.into(),
            unit,
            count: observed.len(),
            p50: quantile(&observed, 0.5),
            p99: quantile(&observed, 0.99),
            max: quantile(&observed, 1.0),
            elements: None,
            used: None,
        }
    }
}

/// The least of sorted numbers that has this part of them at or below it.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// What the process of a workload answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) measures: Vec<Measure>,
    /// How many objects the workload has.
    pub(crate) objects: usize,
    /// How many connections were compared with the law.
    pub(crate) compared: usize,
}

/// What one process does. Memory is observed where nothing ran before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Objects stream into an engine.
    Memory,
    /// Compilation is timed, then whatever else the workload has.
    Time,
}

impl Pass {
    /// The pass as the argument of a process.
    pub fn word(self) -> &'static str {
        match self {
            Pass::Memory => "memory",
            Pass::Time => "time",
        }
    }
}

pub(crate) fn run(workload: &Workload, pass: Pass, options: &Options) -> Result<Measurement, BenchError> {
    let size = Size { scale: options.scale, seed: options.seed };
    match pass {
        Pass::Memory => memory_of(workload, size),
        Pass::Time => time_of(workload, size, options),
    }
}

fn memory_of(workload: &Workload, size: Size) -> Result<Measurement, BenchError> {
    let instance = (workload.make)(size);
    let before = proc::resident()?;
    let mut engine = Engine::new(instance.scope).with_complete_namespaces();
    let mut objects = 0;
    for object in instance.objects {
        objects += 1;
        engine.apply(ObjectDelta::Upsert(object));
    }
    black_box(engine.flush());
    let (peak, kept) = (proc::peak()? - before, proc::resident()? - before);
    black_box(engine.plan());
    let measure = |name, value| Measure::new(name, Unit::MiB, vec![value]);
    Ok(Measurement { measures: vec![measure(MEMORY, peak), measure(STATE, kept)], objects, compared: 0 })
}

fn time_of(workload: &Workload, size: Size, options: &Options) -> Result<Measurement, BenchError> {
    let before = proc::resident()?;
    let (mut times, mut processor) = (Vec::new(), Vec::new());
    let mut held = 0.0;
    let mut last: Option<(Engine, usize)> = None;
    for repeat in 0..options.repeat.max(1) {
        drop(last.take()); // one engine at a time
        let instance = (workload.make)(size);
        let deltas: Vec<ObjectDelta> = instance.objects.map(ObjectDelta::Upsert).collect();
        let objects = deltas.len();
        let (used, start) = (on_processor()?, Instant::now());
        let mut engine = Engine::new(instance.scope).with_complete_namespaces();
        for delta in deltas {
            engine.apply(delta);
        }
        let delta = engine.flush();
        times.push(start.elapsed().as_secs_f64());
        processor.push(on_processor()? - used);
        drop(black_box(delta));
        if repeat == 0 {
            held = proc::peak()? - before;
        }
        last = Some((engine, objects));
    }
    let (mut engine, objects) = last.ok_or_else(|| BenchError::Empty("it has no run".into()))?;
    let mut measures = vec![
        Measure::new(COMPILE, Unit::Seconds, processor),
        Measure::new(CLOCK, Unit::Seconds, times),
        Measure::new(HELD, Unit::MiB, vec![held]),
    ];
    match workload.extra {
        Extra::None => {}
        Extra::LookupsAndSets => {
            measures.push(lookups((workload.make)(size), &engine, options)?);
            measures.push(events::set_edits(&mut engine, size.seed, options.budget())?);
        }
        Extra::Events => measures.extend(events::run(&mut engine, size, options.budget())?),
    }
    let compared = crate::agreement::check((workload.make)(size), &engine, options.budget())?;
    Ok(Measurement { measures, objects, compared })
}

fn on_processor() -> Result<f64, BenchError> {
    proc::processor_seconds().ok_or(BenchError::NoField("time on a processor"))
}

/// Judges connections one by one.
fn lookups(instance: Instance, engine: &Engine, options: &Options) -> Result<Measure, BenchError> {
    let drawer = Drawer::new(instance)?;
    let simulator = Simulator::new(engine.plan());
    let end = Instant::now() + options.budget();
    let mut times = Vec::new();
    for number in 0..50_000 {
        let flow = drawer.flow(number);
        let start = Instant::now();
        let judgement = simulator.judge(black_box(&flow));
        times.push(start.elapsed().as_secs_f64());
        black_box(judgement);
        if number % 1_000 == 999 && Instant::now() > end {
            break;
        }
    }
    Ok(Measure::new(LOOKUP, Unit::Seconds, times))
}

impl Options {
    /// How long each loop of a workload may take.
    fn budget(&self) -> Duration {
        if self.scale < 1.0 { Duration::from_secs(3) } else { Duration::from_secs(10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_observed_values() {
        let numbers: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|part| quantile(&numbers, part)), [1.0, 100.0, 198.0, 200.0]);
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
        let measure = Measure::new("x", Unit::Seconds, vec![3.0, 1.0, 2.0]);
        assert_eq!((measure.p50, measure.p99, measure.max, measure.count), (2.0, 3.0, 3.0, 3));
    }
}
