//! Container logs: one file per run of a container, in the form that the Container Runtime Interface prescribes
//! (`TIME STREAM F|P TEXT`), and its reader.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::fs::File;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufReader, DuplexStream,
};
use tokio::sync::{Mutex, broadcast, watch};

use crate::timestamp;

/// A file takes this much, then says so once and takes no more: a lab must not fill a disk.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// A longer line is written in parts, marked `P` until the last.
const MAX_LINE: usize = 16 * 1024;

/// The log of one run of a container.
#[derive(Debug)]
pub(crate) struct ContainerLog {
    path: PathBuf,
    writer: Mutex<Writer>,
    progress: watch::Sender<Progress>,
    live: broadcast::Sender<(Stream, Arc<[u8]>)>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    full: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Progress {
    length: u64,
    ended: bool,
}

/// Which of a process's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What to show of a log (kubernetes-api 9).
#[derive(Debug, Clone, Default)]
pub(crate) struct LogView {
    pub(crate) follow: bool,
    pub(crate) timestamps: bool,
    pub(crate) since: Option<SystemTime>,
    pub(crate) tail: Option<u64>,
    pub(crate) limit: Option<u64>,
}

impl ContainerLog {
    pub(crate) async fn create(path: &Path) -> io::Result<Arc<Self>> {
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent).await?;
        }
        let file = File::create(path).await?;
        let writer = Mutex::new(Writer { file, full: false });
        let (progress, _) = watch::channel(Progress::default());
        // Attached clients that are slower than this many pieces lose some, as with any terminal.
        let (live, _) = broadcast::channel(1024);
        Ok(Arc::new(Self { path: path.to_owned(), writer, progress, live }))
    }

    /// Copies a stream into the log until it ends.
    pub(crate) async fn record(&self, stream: Stream, source: impl AsyncRead + Unpin) {
        let mut source = BufReader::with_capacity(MAX_LINE, source);
        loop {
            let piece = match source.fill_buf().await {
                // A terminal whose last program has ended answers EIO.
                Ok([]) | Err(_) => return,
                Ok(piece) => piece,
            };
            let end = piece.iter().position(|byte| *byte == b'\n');
            let (length, text) = match end {
                Some(end) => (end + 1, &piece[..end]),
                None => (piece.len(), piece),
            };
            let _ = self.live.send((stream, Arc::from(&piece[..length])));
            if let Err(error) = self.append(stream, end.is_some(), text).await {
                tracing::warn!(path = %self.path.display(), %error, "log line lost");
            }
            source.consume(length);
        }
    }

    async fn append(&self, stream: Stream, whole: bool, text: &[u8]) -> io::Result<()> {
        let mut writer = self.writer.lock().await;
        if writer.full {
            return Ok(());
        }
        let notice =
            format!("[sluice: this log has reached {} MiB; later output is not kept]", MAX_FILE >> 20);
        let length = self.progress.borrow().length;
        writer.full = length > MAX_FILE;
        let (whole, text) = if writer.full { (true, notice.as_bytes()) } else { (whole, text) };
        let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        let mark = if whole { 'F' } else { 'P' };
        let mut line = format!("{} {name} {mark} ", timestamp::nanoseconds(SystemTime::now())).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        writer.file.write_all(&line).await?;
        writer.file.flush().await?;
        self.progress.send_modify(|progress| progress.length += line.len() as u64);
        Ok(())
    }

    /// No more will come.
    pub(crate) fn end(&self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }

    /// Waits until something was written; false if the log ended before.
    pub(crate) async fn first_output(&self) -> bool {
        let mut progress = self.progress.subscribe();
        match progress.wait_for(|progress| progress.length > 0 || progress.ended).await {
            Ok(progress) => progress.length > 0,
            Err(_) => false,
        }
    }

    /// What the process writes to a stream from now on, until it ends.
    pub(crate) fn live(&self, wanted: Stream) -> DuplexStream {
        let (mut pieces, mut progress) = (self.live.subscribe(), self.progress.subscribe());
        let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            loop {
                let piece = tokio::select! {
                    biased;
                    piece = pieces.recv() => piece,
                    _ = progress.wait_for(|progress| progress.ended) => return,
                };
                match piece {
                    Ok((stream, piece)) if stream == wanted => {
                        if ours.write_all(&piece).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        theirs
    }

    /// The text of a view, written into a pipe by a task that ends with the reader.
    pub(crate) fn read(self: &Arc<Self>, view: LogView) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let log = Arc::clone(self);
        let known = self.progress.borrow().length;
        tokio::spawn(async move {
            if let Err(error) = log.copy(view, known, ours).await
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                tracing::warn!(path = %log.path.display(), %error, "log not readable");
            }
        });
        theirs
    }

    async fn copy(&self, view: LogView, known: u64, mut target: DuplexStream) -> io::Result<()> {
        let mut progress = self.progress.subscribe();
        let mut reader = BufReader::new(File::open(&self.path).await?);
        let mut position = 0;
        let mut budget = view.limit.unwrap_or(u64::MAX);
        let mut at_line_start = true;
        if let Some(tail) = view.tail {
            position = self.start_of_tail(known, tail).await?;
            reader.seek(io::SeekFrom::Start(position)).await?;
        }
        let mut line = Vec::new();
        loop {
            let seen = *progress.borrow_and_update();
            while position < seen.length {
                line.clear();
                let length = reader.read_until(b'\n', &mut line).await? as u64;
                if length == 0 {
                    break;
                }
                position += length;
                let Some((time, whole, text)) = split(&line) else { continue };
                if view.since.is_some_and(|since| timestamp::parse(time).is_some_and(|time| time < since)) {
                    continue;
                }
                let mut shown = Vec::with_capacity(line.len());
                if view.timestamps && at_line_start {
                    shown.extend_from_slice(time.as_bytes());
                    shown.push(b' ');
                }
                shown.extend_from_slice(text);
                if whole {
                    shown.push(b'\n');
                }
                at_line_start = whole;
                shown.truncate(usize::try_from(budget).unwrap_or(usize::MAX));
                budget -= shown.len() as u64;
                target.write_all(&shown).await?;
                if budget == 0 {
                    return target.shutdown().await;
                }
            }
            if !view.follow || seen.ended {
                return target.shutdown().await;
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { return target.shutdown().await },
                // The reader is gone when its end of the pipe can be "read".
                _ = target.read_u8() => return Ok(()),
            }
        }
    }

    /// Where the last `tail` lines begin. Continued lines count once.
    async fn start_of_tail(&self, known: u64, tail: u64) -> io::Result<u64> {
        let mut reader = BufReader::new(File::open(&self.path).await?).take(known);
        let mut starts = VecDeque::new();
        let (mut position, mut line, mut at_line_start) = (0, Vec::new(), true);
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).await? as u64;
            if length == 0 {
                return Ok(starts.front().copied().filter(|_| tail > 0).unwrap_or(position));
            }
            if at_line_start {
                starts.push_back(position);
                if starts.len() as u64 > tail {
                    starts.pop_front();
                }
            }
            at_line_start = split(&line).is_none_or(|(_, whole, _)| whole);
            position += length;
        }
    }
}

/// Time, whether the line is complete, and its text.
fn split(line: &[u8]) -> Option<(&str, bool, &[u8])> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let _stream = parts.next()?;
    let whole = parts.next()? == b"F";
    Some((time, whole, parts.next()?))
}

/// `since_seconds` ago.
pub(crate) fn ago(seconds: u64) -> Option<SystemTime> {
    SystemTime::now().checked_sub(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(log: &Arc<ContainerLog>, view: LogView) -> String {
        let mut text = String::new();
        log.read(view).read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_log_is_shown_whole_in_part_and_while_it_grows() {
        let directory = tempfile::tempdir().unwrap();
        let log = ContainerLog::create(&directory.path().join("pod/0.log")).await.unwrap();
        log.record(Stream::Stdout, &b"one\ntwo\n"[..]).await;
        log.record(Stream::Stderr, &b"three"[..]).await;
        assert!(log.first_output().await);
        assert_eq!(text(&log, LogView::default()).await, "one\ntwo\nthree");
        let tail = |tail| LogView { tail: Some(tail), ..LogView::default() };
        assert_eq!(text(&log, tail(2)).await, "two\nthree");
        assert_eq!(text(&log, tail(0)).await, "");
        assert_eq!(text(&log, tail(99)).await, "one\ntwo\nthree");
        assert_eq!(text(&log, LogView { limit: Some(5), ..LogView::default() }).await, "one\nt");
        let stamped = text(&log, LogView { timestamps: true, ..LogView::default() }).await;
        for line in stamped.lines() {
            assert!(timestamp::parse(line.split(' ').next().unwrap()).is_some(), "{line}");
        }
        let future = SystemTime::now().checked_add(Duration::from_secs(60));
        assert_eq!(text(&log, LogView { since: future, ..LogView::default() }).await, "");
        assert_eq!(text(&log, LogView { since: ago(60), ..LogView::default() }).await, "one\ntwo\nthree");

        let mut followed = log.read(LogView { follow: true, tail: Some(0), ..LogView::default() });
        let mut live = log.live(Stream::Stdout);
        log.record(Stream::Stdout, &b"\nfour\n"[..]).await;
        log.end();
        let mut rest = String::new();
        followed.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "\nfour\n");
        rest.clear();
        live.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "\nfour\n");
    }

    #[tokio::test]
    async fn a_long_line_stays_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let log = ContainerLog::create(&directory.path().join("0.log")).await.unwrap();
        let long = format!("{}\nshort\n", "x".repeat(3 * MAX_LINE));
        log.record(Stream::Stdout, long.as_bytes()).await;
        let shown = text(&log, LogView { timestamps: true, ..LogView::default() }).await;
        assert_eq!(shown.lines().count(), 2);
        let tail = LogView { tail: Some(2), ..LogView::default() };
        assert_eq!(text(&log, tail).await, long);
    }

    #[tokio::test]
    async fn a_log_does_not_grow_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let log = ContainerLog::create(&path).await.unwrap();
        log.record(Stream::Stdout, tokio::io::repeat(b'x').take(MAX_FILE + (4 << 20))).await;
        log.end();
        assert!(std::fs::metadata(&path).unwrap().len() < MAX_FILE + (1 << 20));
        let tail = LogView { tail: Some(1), ..LogView::default() };
        assert!(text(&log, tail).await.contains("later output is not kept"));
    }
}
