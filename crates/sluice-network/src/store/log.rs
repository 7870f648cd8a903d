//! The file: length-prefixed records with CRC32C, appended under a lock, rewritten by rename.
//!
//! ```text
//! log := record*      record := length:u32le crc32c:u32le payload[length]      payload := JSON of `Record`
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::crc32c::crc32c;
use super::record::Record;
use crate::NetworkError;

/// Largest record. A snapshot of 10,000 attachments is about 4 MB.
const RECORD_LIMIT: usize = 16 << 20;
/// Largest log that is read; it is rewritten long before.
const LOG_LIMIT: u64 = 64 << 20;
const HEADER: usize = 8;

/// The open log and how far it was read.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// End of the last good record.
    offset: u64,
    /// Size of the snapshot at the head, if any.
    head: u64,
}

/// A part of the log that could not be read and was moved aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Bytes that were good.
    pub kept: u64,
    /// Bytes that were moved.
    pub lost: u64,
    /// Where they are now.
    pub moved_to: PathBuf,
    /// What was wrong.
    pub reason: String,
}

impl Log {
    pub(super) fn open(path: PathBuf) -> Result<Self, NetworkError> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
        let file = file.map_err(|e| failed("open", &path, e))?;
        Ok(Self { path, file, offset: 0, head: 0 })
    }

    /// Whether another process has put a rewritten log in place of this one, or has cut it.
    pub(super) fn is_replaced(&self) -> Result<bool, NetworkError> {
        let own = self.file.metadata().map_err(|e| failed("stat", &self.path, e))?;
        // The inode number cannot have been reused while this descriptor holds the old file.
        Ok(match fs::metadata(&self.path) {
            Ok(named) => (named.ino(), named.dev()) != (own.ino(), own.dev()) || own.len() < self.offset,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(failed("stat", &self.path, error)),
        })
    }

    /// Reads what was appended since the last call. A bad tail is moved to a file beside the log and cut off, so
    /// that later records are found again (networking 3.1).
    pub(super) fn read_new(&mut self) -> Result<(Vec<Record>, Option<Damage>), NetworkError> {
        let length = self.file.metadata().map_err(|e| failed("stat", &self.path, e))?.len();
        if length == self.offset {
            return Ok((Vec::new(), None));
        }
        let mut bytes = Vec::new();
        let wanted = length.saturating_sub(self.offset).min(LOG_LIMIT);
        self.file.seek(SeekFrom::Start(self.offset)).map_err(|e| failed("read", &self.path, e))?;
        (&self.file).take(wanted).read_to_end(&mut bytes).map_err(|e| failed("read", &self.path, e))?;
        let (records, good, bad) = decode(&bytes);
        if self.offset == 0 {
            self.head = records.first().map_or(0, |(_, size)| *size as u64);
        }
        self.offset += good as u64;
        let damage = match bad {
            None => None,
            Some(reason) => Some(self.cut(length, reason)?),
        };
        Ok((records.into_iter().map(|(record, _)| record).collect(), damage))
    }

    /// Appends one record by one write.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), NetworkError> {
        let bytes = encode(record)?;
        match self.file.write_all(&bytes) {
            Ok(()) => {
                self.offset += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a record (disk full) would hide every later one; if the cut fails too, the next reader
                // does it.
                let _ = self.file.set_len(self.offset);
                Err(failed("append to", &self.path, error))
            }
        }
    }

    /// Whether more has been appended than is worth replaying.
    pub(super) fn is_long(&self) -> bool {
        self.offset > (64 << 10) + 4 * self.head
    }

    /// Replaces the log by one that holds `record` only. Readers of the old file notice by
    /// [`Log::is_replaced`]. A crash leaves the old log or the new one.
    pub(super) fn rewrite(&mut self, record: &Record) -> Result<(), NetworkError> {
        let bytes = encode(record)?;
        let fresh = self.path.with_extension("new");
        let write = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?.write_all(&bytes)?;
            fs::rename(&fresh, &self.path)?;
            OpenOptions::new().read(true).append(true).open(&self.path)
        };
        self.file = write().map_err(|e| failed("rewrite", &self.path, e))?;
        self.offset = bytes.len() as u64;
        self.head = self.offset;
        Ok(())
    }

    fn cut(&mut self, length: u64, reason: String) -> Result<Damage, NetworkError> {
        let lost = length - self.offset;
        let mut tail = vec![0; usize::try_from(lost.min(LOG_LIMIT)).unwrap_or(0)];
        self.file.read_exact_at(&mut tail, self.offset).map_err(|e| failed("read", &self.path, e))?;
        let moved_to = free_name(&self.path);
        fs::write(&moved_to, &tail).map_err(|e| failed("save the bad tail of", &moved_to, e))?;
        self.file.set_len(self.offset).map_err(|e| failed("cut", &self.path, e))?;
        Ok(Damage { kept: self.offset, lost, moved_to, reason })
    }
}

/// `log.bad`, or the first of `log.bad.1` … `log.bad.99` that does not exist; the last one is overwritten.
fn free_name(path: &Path) -> PathBuf {
    let name = |n: u32| path.with_extension(if n == 0 { "bad".to_owned() } else { format!("bad.{n}") });
    (0..99).map(name).find(|candidate| !candidate.exists()).unwrap_or_else(|| name(99))
}

fn encode(record: &Record) -> Result<Vec<u8>, NetworkError> {
    let payload = serde_json::to_vec(record).expect("a record has string keys only");
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= RECORD_LIMIT);
    let length = length.ok_or(NetworkError::RecordSize(payload.len()))?;
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// The records of the good prefix with their sizes, the prefix' length, and why it ends before the input does.
fn decode(bytes: &[u8]) -> (Vec<(Record, usize)>, usize, Option<String>) {
    let mut records = Vec::new();
    let mut good = 0;
    while good < bytes.len() {
        match decode_one(&bytes[good..]) {
            Ok((record, size)) => {
                records.push((record, size));
                good += size;
            }
            Err(reason) => return (records, good, Some(reason)),
        }
    }
    (records, good, None)
}

fn decode_one(bytes: &[u8]) -> Result<(Record, usize), String> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).ok_or("a record's header is cut off")?;
        Ok::<_, String>(u32::from_le_bytes(word.try_into().expect("the slice has four bytes")))
    };
    let (length, sum) = (word(0)? as usize, word(4)?);
    if length > RECORD_LIMIT {
        return Err(format!("a record claims {length} bytes"));
    }
    let payload = bytes.get(HEADER..HEADER + length).ok_or("a record is cut off")?;
    if crc32c(payload) != sum {
        return Err("a record's checksum is wrong".to_owned());
    }
    let record = serde_json::from_slice(payload).map_err(|e| format!("a record is not understood: {e}"))?;
    Ok((record, HEADER + length))
}

pub(super) fn failed(operation: &'static str, path: &Path, source: io::Error) -> NetworkError {
    NetworkError::Store { operation, path: path.to_owned(), source }
}
