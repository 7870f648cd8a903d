//! exec and logs.

use anyhow::bail;
use futures::AsyncBufReadExt;
use kube::api::{AttachParams, LogParams};
use kube::{Api, Client};
use tokio::io::AsyncWriteExt;

use super::connect;
use crate::args::{Exec, Logs, Target};
use crate::exit::Exit;

fn pods(client: &Client, target: &Target) -> Api<sluice_kinds::KubernetesPod> {
    Api::namespaced(client.clone(), &target.namespace())
}

/// `sluice exec`: exits with the command's own code.
pub(crate) async fn exec(command: Exec) -> anyhow::Result<Exit> {
    let client = connect(&command.target).await?;
    let params = AttachParams {
        container: command.container.clone(),
        stdin: command.stdin,
        stdout: true,
        stderr: true,
        ..AttachParams::default()
    };
    let mut session =
        pods(&client, &command.target).exec(&command.pod, command.command.clone(), &params).await?;
    let status = session.take_status();
    let (mut out, mut err) = (session.stdout(), session.stderr());
    if let Some(mut stdin) = session.stdin() {
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        });
    }
    let copy_out = async {
        if let Some(out) = &mut out {
            let _ = tokio::io::copy(out, &mut tokio::io::stdout()).await;
        }
    };
    let copy_err = async {
        if let Some(err) = &mut err {
            let _ = tokio::io::copy(err, &mut tokio::io::stderr()).await;
        }
    };
    tokio::join!(copy_out, copy_err);
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let Some(status) = status else { bail!("the API closed the stream without a result") };
    if status.status.as_deref() == Some("Success") {
        return Ok(Exit::Yes);
    }
    let code = status
        .details
        .iter()
        .flat_map(|d| d.causes.iter().flatten())
        .find(|c| c.reason.as_deref() == Some("ExitCode"))
        .and_then(|c| c.message.as_deref()?.parse::<u8>().ok());
    match code {
        Some(code) => Ok(Exit::Code(code)),
        None => bail!("{}", status.message.unwrap_or_else(|| "the command could not be run".into())),
    }
}

/// `sluice logs`.
pub(crate) async fn logs(command: Logs) -> anyhow::Result<Exit> {
    let client = connect(&command.target).await?;
    let params = LogParams {
        container: command.container.clone(),
        follow: command.follow,
        tail_lines: command.tail,
        ..LogParams::default()
    };
    let mut lines = pods(&client, &command.target).log_stream(&command.pod, &params).await?.lines();
    use futures::TryStreamExt;
    let mut out = tokio::io::stdout();
    while let Some(line) = lines.try_next().await? {
        if out.write_all(line.as_bytes()).await.is_err() || out.write_all(b"\n").await.is_err() {
            break; // the reader went away
        }
    }
    out.flush().await.ok();
    Ok(Exit::Yes)
}
