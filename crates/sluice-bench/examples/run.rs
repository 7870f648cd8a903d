//! Runs the workloads without the `sluice` binary: `cargo run --release -p sluice-bench --example run -- 0.01 [WORKLOAD…]`.

use std::process::ExitCode;

use sluice_bench::{BenchError, Options, child, engine};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<String, BenchError> {
    if let [first, rest @ ..] = arguments
        && first == "--child"
    {
        return child(rest);
    }
    let scale = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(Options::QUICK);
    let only = arguments.iter().skip(1).cloned().collect();
    let options = Options { only, scale, ..Options::default() };
    let program = std::env::current_exe().expect("a running program has a path");
    let report = engine(&options, &program, &["--child".into()], |line| eprintln!("{line}"))?;
    Ok(report.table())
}
