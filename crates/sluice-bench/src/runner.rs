//! Runs workloads in processes of their own and collects what they say.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::measure::{Measurement, Pass};
use crate::report::Report;
use crate::workload::{COMPILE, WORKLOADS, Workload};
use crate::{BenchError, measure, workload};

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these workloads; empty = all.
    pub only: Vec<String>,
    /// How often compilation is timed.
    pub repeat: usize,
    /// The size; 1 is the published one.
    pub scale: f64,
    /// Which instance of each workload.
    pub seed: u64,
}

impl Options {
    /// The published sizes.
    pub const FULL: f64 = 1.0;
    /// The size at which CI compares plans with the law.
    pub const QUICK: f64 = 0.01;
}

impl Default for Options {
    fn default() -> Self {
        Options { only: vec![], repeat: 5, scale: Options::FULL, seed: 1 }
    }
}

/// Measures the workloads, one after the other. `program` and `arguments` start a process that calls [`child`]; these are
/// added: workload, pass, repeats, scale, seed. `progress` is told what begins.
pub fn engine(
    options: &Options,
    program: &PathBuf,
    arguments: &[OsString],
    mut progress: impl FnMut(&str),
) -> Result<Report, BenchError> {
    let chosen = chosen(options)?;
    let mut report = Report::new(options.scale);
    for (number, workload) in chosen.iter().enumerate() {
        let mut measurement = Measurement::default();
        for pass in [Pass::Memory, Pass::Time] {
            progress(&format!("{}/{} {}: {}", number + 1, chosen.len(), workload.name, pass.word()));
            let answer = start(workload, pass, options, program, arguments)?;
            measurement.measures.extend(answer.measures);
            measurement.objects = answer.objects;
            measurement.compared += answer.compared;
        }
        if let Some(compile) = measurement.measures.iter().find(|measure| measure.name == COMPILE) {
            progress(&format!(
                "    compiled in {:.3} s, {} connections compared",
                compile.p50, measurement.compared
            ));
        }
        report.add(workload, measurement);
    }
    Ok(report)
}

fn chosen(options: &Options) -> Result<Vec<&'static Workload>, BenchError> {
    let names = || WORKLOADS.iter().map(|w| w.name).collect::<Vec<_>>().join(", ");
    for name in &options.only {
        workload::find(name).ok_or_else(|| BenchError::NoSuchWorkload(name.clone(), names()))?;
    }
    let wanted = |workload: &&Workload| {
        options.only.is_empty() || options.only.iter().any(|name| name == workload.name)
    };
    Ok(WORKLOADS.iter().filter(wanted).collect())
}

fn start(
    workload: &Workload,
    pass: Pass,
    options: &Options,
    program: &PathBuf,
    arguments: &[OsString],
) -> Result<Measurement, BenchError> {
    let output = Command::new(program)
        .args(arguments)
        .args([workload.name, pass.word()])
        .args([options.repeat.to_string(), options.scale.to_string(), options.seed.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| BenchError::Start(program.clone(), error))?;
    if !output.status.success() {
        return Err(BenchError::Child { workload: workload.name.into(), status: output.status });
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| BenchError::Answer { workload: workload.name.into(), error })
}

/// The part of a process that [`engine`] started, with the five arguments that were added: what to print on standard
/// output.
pub fn child(arguments: &[String]) -> Result<String, BenchError> {
    let wrong = || BenchError::NoSuchWorkload(arguments.join(" "), "no other callers".into());
    let [name, pass, repeat, scale, seed] = arguments else { return Err(wrong()) };
    let workload = workload::find(name).ok_or_else(wrong)?;
    let pass = [Pass::Memory, Pass::Time].into_iter().find(|p| p.word() == pass).ok_or_else(wrong)?;
    let options = Options {
        only: vec![],
        repeat: repeat.parse().map_err(|_| wrong())?,
        scale: scale.parse().map_err(|_| wrong())?,
        seed: seed.parse().map_err(|_| wrong())?,
    };
    let measurement = measure::run(workload, pass, &options)?;
    Ok(serde_json::to_string(&measurement).expect("numbers and texts are JSON"))
}
