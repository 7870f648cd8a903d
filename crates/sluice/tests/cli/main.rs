//! The command line as its users run it: text in, text out. No test here needs a kernel, a cluster or a network.

mod cluster;
mod complete;
mod examples;
mod goldens;
mod input;
mod live;
mod pages;
mod streams;
mod transcript;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The root of the project.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two folders above").to_owned()
}

/// The program in a plain environment: no cluster, no terminal.
fn sluice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    isolated(&mut command);
    command
}

/// In the project's folder, without what a person has set.
fn isolated(command: &mut Command) -> &mut Command {
    command.current_dir(project()).env("HOME", "/nonexistent");
    for name in ["KUBECONFIG", "NO_COLOR", "CLICOLOR_FORCE", "SLUICE_LOG", "KUBERNETES_SERVICE_HOST"] {
        command.env_remove(name);
    }
    command
}

/// Runs it with arguments and a text on standard input.
fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = sluice()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // a program that does not read its input may be gone already
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
