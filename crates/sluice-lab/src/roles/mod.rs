//! Built-in workloads: images named `sluice.dev/…` are roles of this program, run in the pod as
//! `/sluice __role NAME ARGUMENTS`. The lab also runs them as plain processes on nodes and on the outside host.

pub(crate) mod dns;
mod serve;

use std::process::exit;

/// The images that are roles.
pub(crate) const IMAGE_PREFIX: &str = "sluice.dev/";

/// Runs a role. Never returns.
pub(crate) fn main(arguments: &[String]) -> ! {
    let Some((name, rest)) = arguments.split_first() else {
        eprintln!("sluice: no role named");
        exit(2)
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sluice {name}: {error}");
            exit(1)
        }
    };
    let result = runtime.block_on(async {
        let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|error| error.to_string())?;
        let role = async {
            match name.as_str() {
                "serve" => serve::run(&serve::Arguments::parse(rest)?).await,
                "dns" => dns::run(rest).await,
                "pause" => {
                    println!("ready");
                    std::future::pending().await
                }
                other => {
                    Err(format!("there is no built-in workload {other:?}; there are serve, dns and pause"))
                }
            }
        };
        tokio::select! {
            result = role => result,
            _ = end.recv() => Ok(()),
        }
    });
    match result {
        Ok(()) => exit(0),
        Err(message) => {
            eprintln!("sluice {name}: {message}");
            exit(1)
        }
    }
}
