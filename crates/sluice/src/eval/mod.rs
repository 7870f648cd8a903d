//! `sluice eval`: many questions, as JSON lines in and out.
//!
//! ```text
//!   input ──lines──► blocks ──► workers (parse, judge on the plan, write) ──► answers in the order of the questions
//! ```
//!
//! Questions are judged on the compiled plan, which says the same as the law (the test suite compares them). What a leg says is
//! worked out once per leg and outcome. Only where an address is contested or not yet known, or host endpoints have
//! a say, the law itself is asked.

mod question;
mod worker;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};

use self::worker::Worker;
use crate::args::Eval;
use crate::exit::Exit;
use crate::input;
use crate::resolve::Placed;

/// Longest line of the input, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// Bytes that are read at once; a reader that is slower gets its answers sooner.
const BLOCK: usize = 256 * 1024;
/// Blocks that wait for each worker.
const WAITING: usize = 4;

/// Whole lines of the input.
struct Block {
    text: Vec<u8>,
    /// The number of its first line.
    first_line: u64,
    answer: SyncSender<Answers>,
}

/// The answers to a block; with an error they end before the line that has it.
struct Answers {
    text: Vec<u8>,
    error: Option<anyhow::Error>,
}

/// Runs the command.
pub(crate) fn run(command: &Eval) -> anyhow::Result<Exit> {
    let input = input::read(&command.source)?;
    let name = command.flows.display().to_string();
    let reader: Box<dyn Read + Send> = if command.flows == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(&command.flows).with_context(|| format!("cannot read {name}"))?)
    };
    let namespace = command.source.namespace();
    let questions = Questions { name: &name, namespace: &namespace, reader };
    answer(&input.placed, questions, &mut std::io::stdout().lock())?;
    Ok(input.exit(Exit::Yes))
}

/// What is asked.
pub(crate) struct Questions<'a> {
    /// What messages call the text.
    pub(crate) name: &'a str,
    /// The namespace of ends that name none.
    pub(crate) namespace: &'a str,
    /// One question a line.
    pub(crate) reader: Box<dyn Read + Send>,
}

/// Writes the answers to all questions, in their order. That whoever reads them has left is no error.
pub(crate) fn answer(placed: &Placed, questions: Questions<'_>, out: &mut impl Write) -> anyhow::Result<()> {
    let Questions { name, namespace, reader } = questions;
    let plan = crate::ask::compile_as(&placed.world, None, placed.namespaces_are_complete);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let (to_workers, blocks) = sync_channel::<Block>(workers * WAITING);
    let (to_writer, order) = sync_channel::<Receiver<Answers>>(workers * WAITING * 2);
    let blocks = Mutex::new(blocks);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut worker = Worker::new(placed, &plan, namespace, name);
                loop {
                    let next = blocks.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(block) = next else { return };
                    let answers = worker.answers(&block.text, block.first_line);
                    // nobody waits for it any more once writing has ended
                    let _ = block.answer.send(answers);
                }
            });
        }
        let reading = scope.spawn(move || read_blocks(reader, name, &to_workers, &to_writer));
        let written = write_answers(&order, out);
        drop(order); // the reader ends at its next block
        let read = reading.join().map_err(|_| anyhow::anyhow!("the reader of {name} has failed"))?;
        match (written?, read) {
            (Wrote::Everything, Err(error)) => Err(error),
            (Wrote::Everything | Wrote::ReaderLeft, _) => Ok(()),
        }
    })
}

enum Wrote {
    Everything,
    /// Whoever read our output has closed it.
    ReaderLeft,
}

/// Writes the answers in the order of the blocks.
fn write_answers(order: &Receiver<Receiver<Answers>>, out: &mut impl Write) -> anyhow::Result<Wrote> {
    for answers in order {
        let Ok(answers) = answers.recv() else { bail!("a worker has failed") };
        if out.write_all(&answers.text).and_then(|()| out.flush()).is_err() {
            return Ok(Wrote::ReaderLeft);
        }
        if let Some(error) = answers.error {
            return Err(error);
        }
    }
    Ok(Wrote::Everything)
}

/// Cuts the input into blocks of whole lines, as they come.
fn read_blocks(
    mut reader: Box<dyn Read + Send>,
    name: &str,
    workers: &SyncSender<Block>,
    writer: &SyncSender<Receiver<Answers>>,
) -> anyhow::Result<()> {
    let (mut rest, mut line) = (Vec::new(), 1u64);
    loop {
        let mut text = std::mem::take(&mut rest);
        let before = text.len();
        text.resize(before + BLOCK, 0);
        let count = reader.read(&mut text[before..]).with_context(|| format!("cannot read {name}"))?;
        text.truncate(before + count);
        if count > 0 {
            let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
            rest = text.split_off(whole);
            if rest.len() > MAX_LINE {
                let line = line + lines(&text);
                bail!("{name}:{line}: a line of more than {MAX_LINE} bytes");
            }
        }
        if !text.is_empty() {
            let (answer, answers) = sync_channel(1);
            let (count, first_line) = (lines(&text), line);
            if writer.send(answers).is_err() || workers.send(Block { text, first_line, answer }).is_err() {
                return Ok(()); // writing has ended
            }
            line += count;
        }
        if count == 0 {
            return Ok(());
        }
    }
}

fn lines(text: &[u8]) -> u64 {
    text.iter().filter(|b| **b == b'\n').count() as u64
}
