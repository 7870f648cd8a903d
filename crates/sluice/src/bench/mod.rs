//! `sluice bench`: how long engine and analysis take, and what they hold.

mod manifests;

use anyhow::bail;
use clap::{Args, ValueEnum};
use sluice_bench::{AnalysisReport, Options};

use crate::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What is measured.
    #[arg(value_enum)]
    what: What,
    /// Only this workload of the engine, or this part of the analysis (cluster, files); repeatable.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How often the engine's compilation is timed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
    /// A hundredth of the sizes: no target is judged, but every plan is compared with the law.
    #[arg(long, conflicts_with_all = ["repeat", "scale"])]
    quick: bool,
    /// A part of the sizes.
    #[arg(long, hide = true, default_value_t = Options::FULL)]
    scale: f64,
    /// Which instance of each workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The form of the result.
    #[arg(short, long, default_value = "table", value_parser = ["table", "json", "md"])]
    output: String,
    /// One workload, in this process.
    #[arg(long, hide = true, num_args = 5)]
    child: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// From parsed objects to the plan, at published sizes; and single changes.
    Engine,
    /// Questions about a cluster of 100,000 pods, and about one of 5,000 in files.
    Analysis,
}

impl Bench {
    fn scale(&self) -> f64 {
        if self.quick { Options::QUICK } else { self.scale }
    }
}

/// Runs the benchmark. That a target is missed is shown and is no failure: machines differ.
pub(crate) fn run(command: &Bench) -> anyhow::Result<Exit> {
    match command.what {
        What::Engine => engine(command)?,
        What::Analysis => analysis(command)?,
    }
    Ok(Exit::Yes)
}

fn engine(command: &Bench) -> anyhow::Result<()> {
    if !command.child.is_empty() {
        println!("{}", sluice_bench::child(&command.child)?);
        return Ok(());
    }
    let options = Options {
        only: command.only.clone(),
        repeat: if command.quick { 1 } else { command.repeat.into() },
        scale: command.scale(),
        seed: command.seed,
    };
    let program = std::env::current_exe()?;
    let arguments = ["bench", "engine", "--child"].map(Into::into);
    let report = sluice_bench::engine(&options, &program, &arguments, |line| eprintln!("{line}"))?;
    match &*command.output {
        "json" => println!("{}", serde_json::to_string_pretty(&report)?),
        "md" => print!("{}", report.markdown()),
        _ => print!("{}", report.table()),
    }
    Ok(())
}

fn analysis(command: &Bench) -> anyhow::Result<()> {
    if let Some(other) = command.only.iter().find(|part| !["cluster", "files"].contains(&part.as_str())) {
        bail!("the analysis has the parts cluster and files, not {other:?}");
    }
    let wants = |part: &str| command.only.is_empty() || command.only.iter().any(|only| only == part);
    let mut report = match wants("cluster") {
        true => sluice_bench::analysis(command.scale(), command.seed)?,
        false => AnalysisReport::new(command.scale()),
    };
    if wants("files") {
        manifests::measure(&mut report, command.scale())?;
    }
    match &*command.output {
        "json" => println!("{}", serde_json::to_string_pretty(&report)?),
        "md" => bail!("analysis is printed as table or json"),
        _ => print!("{}", report.table()),
    }
    Ok(())
}
