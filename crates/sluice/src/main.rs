//! The `sluice` binary: arguments in, rendering out.
//!
//! It holds no logic of its own: commands read objects, ask a crate, and print what it returned. Exit codes: 0 yes, 1 no,
//! 2 the job could not be done, 3 undecided.
#![forbid(unsafe_code)]

/// In this program print!, println! and eprintln! do not panic when whoever read has left: the exit code is still the answer.
macro_rules! print {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::write!(::std::io::stdout(), $($text)*);
    }};
}
macro_rules! println {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::writeln!(::std::io::stdout(), $($text)*);
    }};
}
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use ::std::io::Write as _;
        let _ = ::std::writeln!(::std::io::stderr(), $($text)*);
    }};
}

mod agent;
mod args;
mod ask;
mod bench;
mod changes;
mod check;
mod claims;
mod compare;
mod complete;
mod demo;
mod eval;
mod evidence;
mod exit;
mod input;
mod judge;
mod lint;
mod nearest;
mod progress;
mod prove;
mod reach;
mod reference;
mod render;
mod resolve;
mod stage;
mod status;
mod suggest;
mod topic;
mod up;
mod verbs;

use std::process::ExitCode;

use crate::args::{Command, Sluice};
use crate::exit::Exit;

fn main() -> ExitCode {
    // The lab starts its helpers and its pods' built-in roles from this same binary; they must not become multi-threaded
    // before they have entered their namespaces.
    sluice_lab::run_hidden_command();
    complete::answer_if_asked(&args::called());
    let arguments = args::parse();
    init_logging(arguments.verbose);
    render::style::choose(arguments.color);
    render::style::only_ascii(arguments.ascii);
    progress::hush(arguments.quiet);
    let outcome = match arguments.quiet {
        true => quietly(arguments),
        false => run(arguments),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            exit::report(&error);
            Exit::Failed.into()
        }
    }
}

/// Runs a command whose exit code is all that is wanted.
fn quietly(arguments: Sluice) -> anyhow::Result<Exit> {
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    run(arguments)
}

fn run(arguments: Sluice) -> anyhow::Result<Exit> {
    match arguments.command {
        Command::Can(command) => ask::can(&command),
        Command::Explain(command) => ask::explain(&command),
        Command::Eval(command) => eval::run(&command),
        Command::Reach(command) => reach::run(&command),
        Command::Verify(command) => ask::verify(&command),
        Command::Diff(command) => compare::run(&command),
        Command::Lint(command) => lint::run(&command),
        Command::Suggest(command) => suggest::suggest(&command),
        Command::Isolate(command) => suggest::isolate(&command),
        Command::Prove(command) => {
            let (input, about) = prove::prepare(&command)?;
            runtime()?.block_on(prove::run(command, input, about))
        }
        Command::Evidence(command) => evidence::run(&command),
        Command::Check(command) => check::run(&command),
        Command::Status(command) => runtime()?.block_on(status::run(command)),
        Command::Dump(command) => ask::dump(&command),
        Command::Demo(command) => runtime()?.block_on(demo::run(command)),
        Command::Up(command) => runtime()?.block_on(up::run(command)),
        Command::Apply(command) => runtime()?.block_on(verbs::apply(command)),
        Command::Get(command) => runtime()?.block_on(verbs::get(command)),
        Command::Delete(command) => runtime()?.block_on(verbs::delete(command)),
        Command::Exec(command) => runtime()?.block_on(verbs::exec(command)),
        Command::Logs(command) => runtime()?.block_on(verbs::logs(command)),
        Command::Bench(command) => bench::run(&command),
        Command::Agent(command) => runtime()?.block_on(agent::run(command)),
        Command::Completion { shell } => {
            complete::script(&shell, &mut std::io::stdout())?;
            Ok(Exit::Yes)
        }
        Command::Version { output } => {
            topic::version(output);
            Ok(Exit::Yes)
        }
        Command::Help { topic } => {
            topic::print(topic.as_deref())?;
            Ok(Exit::Yes)
        }
        Command::Man { dir } => {
            eprintln!("{} man pages in {}", reference::man_pages(&dir)?, dir.display());
            Ok(Exit::Yes)
        }
        Command::Reference => {
            print!("{}", reference::markdown());
            Ok(Exit::Yes)
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn init_logging(verbose: u8) {
    let default = match verbose {
        // whoever writes a Log rule wants its records
        0 => "warn,sluice::flows=info,kube_client=off",
        1 => "info,kube_client=warn",
        _ => "debug,hyper=info,rustls=info,h2=info,tower=info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
