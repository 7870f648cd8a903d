//! The example sets load: no error, no field that strict decoding refuses, and no finding but those that their README names.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sluice_kinds::{Limits, load, read_claim};

/// What is in the examples on purpose: set, code, object.
const ON_PURPOSE: [(&str, &str, &str); 3] = [
    ("isolation", "SL1010", "GlobalNetworkPolicy deny-all"),
    ("isolation", "SL1010", "GlobalNetworkPolicy deny-all"),
    ("three-tier", "SL1010", "GlobalNetworkPolicy deny-everything"),
];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// Every set with its manifests.
fn sets() -> BTreeMap<String, Vec<PathBuf>> {
    let mut sets = BTreeMap::new();
    for set in std::fs::read_dir(examples()).unwrap() {
        let set = set.unwrap();
        let mut files: Vec<PathBuf> = std::fs::read_dir(set.path())
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|file| file.extension().is_some_and(|e| e == "yaml"))
            .collect();
        files.sort();
        sets.insert(set.file_name().into_string().unwrap(), files);
    }
    sets
}

#[test]
fn every_example_loads() {
    let mut found: Vec<(String, String, String)> = Vec::new();
    let (mut objects, mut claims) = (0, 0);
    for (set, files) in sets() {
        assert!(!files.is_empty(), "examples/{set} has no manifest");
        for file in files {
            let text = std::fs::read(&file).unwrap();
            let name = file.display().to_string();
            let loaded = load([(name.as_str(), text.as_slice())], "default", &Limits::FILE);
            assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
            for object in loaded.objects {
                assert_eq!(object.strict_problems(), Vec::<String>::new(), "{name} {}", object.name);
                objects += 1;
                if object.gvk.kind == "ConnectivityClaim" {
                    claims += 1;
                    read_claim(&object.value).unwrap();
                    continue;
                }
                for finding in object.to_model().findings {
                    found.push((set.clone(), format!("{:?}", finding.code), finding.object.to_string()));
                }
            }
        }
    }
    found.sort();
    let expected = ON_PURPOSE.map(|(set, code, object)| (set.into(), code.into(), object.into()));
    assert_eq!(found, expected);
    assert!(objects > 100 && claims > 20, "{objects} objects, {claims} claims");
}
