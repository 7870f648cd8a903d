//! The differential tests of the engine at scale: evaluator against engine and simulator, set algebra against the engine,
//! histories against fresh engines. Every round looks at new random worlds.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

/// A test, and how many worlds it looks at in one round: such that a round takes seconds and progress is seen.
struct Suite {
    file: &'static str,
    test: &'static str,
    worlds: u64,
    what: &'static str,
}

/// The suite whose comparisons are asked for; it runs until there are enough.
const AGREEMENT: Suite = Suite {
    file: "agreement",
    test: "plan_and_law_agree_on_every_packet",
    worlds: 4_000,
    what: "connections, evaluator against engine and simulator",
};

/// Suites that run beside it, in turn, until it is done.
const OTHERS: [Suite; 4] = [
    Suite {
        file: "oracle",
        test: "the_engine_agrees_with_set_algebra",
        worlds: 60,
        what: "legs of connections, engine against set algebra",
    },
    Suite {
        file: "host_agreement",
        test: "plan_and_law_agree_along_paths",
        worlds: 1_500,
        what: "connections along paths, evaluator against simulator with the stages of host endpoints",
    },
    Suite {
        file: "history",
        test: "deltas_turn_one_plan_into_the_next",
        worlds: 1_000,
        what: "plans after a history, against fresh ones",
    },
    Suite {
        file: "history",
        test: "plans_of_nodes_agree_with_the_law",
        worlds: 2_000,
        what: "connections, evaluator against the plans of nodes",
    },
];

/// More rounds than this that end badly say nothing new.
const MOST_MISMATCHES: usize = 5;

struct Options {
    cases: u64,
    seed: u64,
}

/// What all rounds found.
struct Found {
    start: Instant,
    /// Comparisons of each suite, by its test.
    compared: Mutex<BTreeMap<&'static str, u64>>,
    /// How each round that ended badly is repeated.
    mismatches: Mutex<Vec<String>>,
    next_seed: AtomicU64,
    over: AtomicBool,
}

/// `cargo xtask soak`.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    match options(arguments).and_then(|options| soak(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut options = Options { cases: 10_000_000, seed: now * 1_000_000 };
    while let Some(name) = arguments.next() {
        let mut number = || -> anyhow::Result<u64> {
            let text = arguments.next().with_context(|| format!("{name} needs a number"))?;
            text.replace('_', "").parse().with_context(|| format!("{name} {text:?} is no number"))
        };
        match name.as_str() {
            "--cases" => options.cases = number()?,
            "--seed" => options.seed = number()?,
            _ => bail!("no option {name:?}; usage: cargo xtask soak [--cases N] [--seed S]"),
        }
    }
    Ok(options)
}

/// Runs rounds until enough was compared; whether nothing differed.
fn soak(options: &Options) -> anyhow::Result<bool> {
    println!("soak: {} comparisons, seeds from {}", grouped(options.cases), options.seed);
    build()?;
    let found = Found {
        start: Instant::now(),
        compared: Mutex::default(),
        mismatches: Mutex::default(),
        next_seed: AtomicU64::new(options.seed),
        over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let others = scope.spawn(|| -> anyhow::Result<()> {
            for suite in OTHERS.iter().cycle() {
                if found.is_over() {
                    break;
                }
                found.round(suite, options)?;
            }
            Ok(())
        });
        let mut result = Ok(());
        while result.is_ok() && !found.is_over() && found.of(AGREEMENT.test) < options.cases {
            result = found.round(&AGREEMENT, options);
        }
        found.over.store(true, Ordering::Relaxed);
        result.and(others.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    found.summary();
    Ok(found.mismatches.lock().expect("no holder panics").is_empty())
}

/// Builds the tests once, so that rounds only run them.
fn build() -> anyhow::Result<()> {
    let status = cargo().args(["--no-run"]).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the tests do not build ({status})");
    }
    Ok(())
}

fn cargo() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands in the project");
    let mut command = Command::new("cargo");
    command.current_dir(root).args([
        "test",
        "--quiet",
        "--release",
        "--locked",
        "--package",
        "sluice-engine",
    ]);
    command
}

impl Found {
    fn is_over(&self) -> bool {
        let mismatches = self.mismatches.lock().expect("no holder panics").len();
        self.over.load(Ordering::Relaxed) || mismatches >= MOST_MISMATCHES
    }

    fn of(&self, test: &str) -> u64 {
        self.compared.lock().expect("no holder panics").get(test).copied().unwrap_or(0)
    }

    /// One test, with seeds that no round had before.
    fn round(&self, suite: &Suite, options: &Options) -> anyhow::Result<()> {
        let seed = self.next_seed.fetch_add(suite.worlds, Ordering::Relaxed);
        let output = cargo()
            .args(["--test", suite.file, "--", "--exact", suite.test, "--nocapture"])
            .env("SLUICE_SEED", seed.to_string())
            .env("SLUICE_WORLDS", suite.worlds.to_string())
            .stdin(Stdio::null())
            .output()
            .context("cannot run cargo")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let compared = compared_in(&text);
        if output.status.success() && compared.is_none() {
            bail!("{} says no number of comparisons", suite.test);
        }
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            println!("soak: MISMATCH in {}\n{}", suite.test, failure_in(&errors));
            self.mismatches.lock().expect("no holder panics").push(format!(
                "SLUICE_SEED={seed} SLUICE_WORLDS={} cargo test --release -p sluice-engine --test {} -- --exact {}",
                suite.worlds, suite.file, suite.test
            ));
        }
        let total = {
            let mut all = self.compared.lock().expect("no holder panics");
            let total = all.entry(suite.test).or_default();
            *total += compared.unwrap_or(0);
            *total
        };
        if suite.test == AGREEMENT.test {
            println!(
                "soak: {} of {}, {} s",
                grouped(total),
                grouped(options.cases),
                self.start.elapsed().as_secs()
            );
        }
        Ok(())
    }

    fn summary(&self) {
        for suite in std::iter::once(&AGREEMENT).chain(&OTHERS) {
            println!("soak: {:>12} {}", grouped(self.of(suite.test)), suite.what);
        }
        let mismatches = self.mismatches.lock().expect("no holder panics");
        println!("soak: {} mismatches, {} s", mismatches.len(), self.start.elapsed().as_secs());
        for command in mismatches.iter() {
            println!("  {command}");
        }
    }
}

/// The number that a test reported.
fn compared_in(output: &str) -> Option<u64> {
    let (_, rest) = output.split_once("compared=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What the test said of the mismatch that it found: seed, message, and the smallest case as the text of a fixture.
fn failure_in(errors: &str) -> String {
    let said = errors.lines().skip_while(|line| !line.contains("SLUICE_SEED="));
    let lines: Vec<String> = said.take_while(|line| *line != "stack backtrace:").map(shortened).collect();
    if lines.is_empty() { "see there".to_owned() } else { lines.join("\n") }
}

fn shortened(line: &str) -> String {
    line.chars().take(300).collect()
}

/// `10,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written() {
        let line = "test a ... compared=160000 SLUICE_SEED=7 SLUICE_WORLDS=4000\nSeen {}\nok\n";
        assert_eq!((compared_in(line), compared_in("ok")), (Some(160_000), None));
        assert_eq!([0, 999, 1_000, 10_000_000].map(grouped), ["0", "999", "1,000", "10,000,000"]);
    }

    #[test]
    fn a_failure_is_told_with_its_fixture() {
        let errors = "warning: x\nthread 'a' panicked at b:1:1:\nSLUICE_SEED=7 SLUICE_WORLDS=1: differs\nMade smaller: \
                      differs\n{\n  \"objects\": []\n}\nstack backtrace:\n   0: main\n";
        let told = "SLUICE_SEED=7 SLUICE_WORLDS=1: differs\nMade smaller: differs\n{\n  \"objects\": []\n}";
        assert_eq!(failure_in(errors), told);
        assert_eq!(failure_in("killed"), "see there");
    }

    #[test]
    fn arguments_are_numbers() {
        let read = |text: &str| options(text.split_whitespace().map(String::from));
        let given = read("--cases 100_000 --seed 5").unwrap();
        assert_eq!((given.cases, given.seed), (100_000, 5));
        assert_eq!(read("").unwrap().cases, 10_000_000);
        for wrong in ["--cases", "--cases x", "--worlds 1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
