//! The durable half on redb: one transaction per commit, synced before `commit` returns.

use std::path::Path;

use redb::{Database, ReadableTable, TableDefinition};
use sha2::{Digest, Sha256};

use super::{Disk, DiskChange, Key, Loaded, StoreError};

/// `resource NUL namespace NUL name` → 8 bytes of checksum, then JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// Names below → numbers.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const REVISION: &str = "revision";
/// Version of this layout; another one is refused, never guessed at.
const FORMAT_VERSION: u64 = 1;
const FILE: &str = "store.redb";
const CHECKSUM: usize = 8;

/// A [`Disk`] in one redb file, which redb locks exclusively.
pub struct RedbDisk {
    database: Database,
}

impl RedbDisk {
    /// Opens or creates `store.redb` in a directory.
    pub fn open(directory: &Path) -> Result<RedbDisk, StoreError> {
        let path = directory.join(FILE);
        let fail = |message: String| StoreError::Open { path: path.display().to_string(), message };
        std::fs::create_dir_all(directory).map_err(|e| fail(e.to_string()))?;
        let database = Database::create(&path).map_err(|e| match e {
            redb::DatabaseError::DatabaseAlreadyOpen => fail("another process has it open".into()),
            other => fail(other.to_string()),
        })?;
        Ok(RedbDisk { database })
    }
}

impl Disk for RedbDisk {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let transaction = self.database.begin_write().map_err(damaged("begin"))?;
        let revision = {
            let mut meta = transaction.open_table(META).map_err(damaged("meta"))?;
            let format = meta.get(FORMAT).map_err(damaged("meta"))?.map(|v| v.value());
            match format {
                None => {
                    meta.insert(FORMAT, FORMAT_VERSION).map_err(damaged("meta"))?;
                }
                Some(FORMAT_VERSION) => {}
                Some(other) => {
                    return Err(StoreError::Damaged {
                        place: "meta format".into(),
                        message: format!("format {other} is not known; this program reads {FORMAT_VERSION}"),
                    });
                }
            }
            meta.get(REVISION).map_err(damaged("meta"))?.map_or(0, |v| v.value())
        };
        let mut objects = Vec::new();
        {
            let table = transaction.open_table(OBJECTS).map_err(damaged("objects"))?;
            for entry in table.iter().map_err(damaged("objects"))? {
                let (key, value) = entry.map_err(damaged("objects"))?;
                objects.push(decode(key.value(), value.value())?);
            }
        }
        transaction.commit().map_err(|e| StoreError::Write(e.to_string()))?;
        Ok(Loaded { revision, objects })
    }

    fn commit(&mut self, revision: u64, changes: &[DiskChange<'_>]) -> Result<(), StoreError> {
        let write = |e: redb::Error| StoreError::Write(e.to_string());
        let transaction = self.database.begin_write().map_err(|e| write(e.into()))?;
        {
            let mut table = transaction.open_table(OBJECTS).map_err(|e| write(e.into()))?;
            for change in changes {
                let key = encode_key(change.key);
                match change.json {
                    Some(json) => {
                        table.insert(&*key, &*encode(&key, json)).map_err(|e| write(e.into()))?;
                    }
                    None => {
                        table.remove(&*key).map_err(|e| write(e.into()))?;
                    }
                }
            }
            let mut meta = transaction.open_table(META).map_err(|e| write(e.into()))?;
            meta.insert(REVISION, revision).map_err(|e| write(e.into()))?;
        }
        transaction.commit().map_err(|e| write(e.into()))
    }
}

fn damaged<E: std::fmt::Display>(place: &'static str) -> impl Fn(E) -> StoreError {
    move |e| StoreError::Damaged { place: place.into(), message: e.to_string() }
}

fn encode_key(key: &Key) -> String {
    format!("{}\0{}\0{}", key.resource, key.namespace, key.name)
}

fn checksum(key: &str, json: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(key).chain_update([0]).chain_update(json).finalize();
    digest[..CHECKSUM].try_into().expect("SHA-256 has 32 bytes")
}

fn encode(key: &str, json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(CHECKSUM + json.len());
    out.extend_from_slice(&checksum(key, json));
    out.extend_from_slice(json);
    out
}

fn decode(key: &str, value: &[u8]) -> Result<(Key, Vec<u8>), StoreError> {
    let fail = |message: &str| StoreError::Damaged {
        place: format!("objects {}", key.replace('\0', " ")),
        message: message.into(),
    };
    let mut parts = key.split('\0');
    let (Some(resource), Some(namespace), Some(name), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(fail("the key does not have three parts"));
    };
    let (sum, json) = value.split_at_checked(CHECKSUM).ok_or_else(|| fail("the value is too short"))?;
    if sum != checksum(key, json) {
        return Err(fail("the checksum differs"));
    }
    let key = Key { resource: resource.into(), namespace: namespace.into(), name: name.into() };
    Ok((key, json.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_value_is_found_and_named() {
        let key = "/pods\0ns\0a";
        let mut value = encode(key, b"{}");
        assert_eq!(decode(key, &value).unwrap().1, b"{}");
        *value.last_mut().unwrap() ^= 1;
        let error = decode(key, &value).unwrap_err().to_string();
        assert!(error.contains("/pods ns a") && error.contains("checksum"), "{error}");
        assert!(decode("/pods\0ns\0b", &encode(key, b"{}")).is_err(), "a value under another key");
    }

    #[test]
    fn another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        {
            let disk = RedbDisk::open(dir.path()).unwrap();
            let t = disk.database.begin_write().unwrap();
            t.open_table(META).unwrap().insert(FORMAT, 99).unwrap();
            t.commit().unwrap();
        }
        let error = RedbDisk::open(dir.path()).unwrap().load().unwrap_err().to_string();
        assert!(error.contains("format 99"), "{error}");
    }
}
