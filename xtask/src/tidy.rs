//! Checks of the tree: dependencies go down the floors only, light crates stay light, files stay readable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The floor of each crate (ARCHITECTURE.md). A crate depends on lower floors only.
const FLOORS: &[(&str, u8)] = &[
    ("sluice-addr", 1),
    ("sluice-netlink", 2),
    ("sluice-selector", 2),
    ("sluice-model", 3),
    ("sluice-plan", 4),
    ("sluice-report", 4),
    ("sluice-kinds", 5),
    ("sluice-engine", 5),
    ("sluice-analysis", 6),
    ("sluice-dataplane", 6),
    ("sluice-network", 6),
    ("sluice-cluster", 7),
    ("sluice-prove", 7),
    ("sluice-agent", 8),
    ("sluice-apiserver", 8),
    ("sluice-bench", 9),
    ("sluice-lab", 9),
    ("sluice", 10),
];

/// Crates that build without sockets, Kubernetes types or an async runtime.
const LIGHT: &[&str] = &[
    "sluice-addr",
    "sluice-selector",
    "sluice-model",
    "sluice-plan",
    "sluice-report",
    "sluice-engine",
    "sluice-analysis",
    "sluice-bench",
];

/// What light crates must not pull in.
const HEAVY: &[&str] =
    &["tokio", "hyper", "kube", "kube-client", "k8s-openapi", "rustix", "libc", "rustls", "redb"];

/// The only crate that may name Kubernetes' own types.
const NAMES_KUBERNETES_TYPES: &str = "sluice-kinds";

/// Crates in which `unsafe` may stand, each in a module that says so. Besides, tests may make namespaces.
const UNSAFE: &[&str] = &["sluice-netlink", "sluice-network", "sluice-lab"];

/// Longest source file, in lines.
const MAX_LINES: usize = 800;

/// Runs every check and prints each violation.
pub(crate) fn run() -> ExitCode {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands in the project").to_owned();
    let mut violations = Vec::new();
    match dependencies(&root) {
        Ok(graph) => check_floors(&graph, &mut violations),
        Err(error) => violations.push(error),
    }
    let files = sources(&root);
    for file in &files {
        check_file(&root, file, &mut violations);
    }
    for violation in &violations {
        eprintln!("tidy: {violation}");
    }
    if violations.is_empty() {
        println!("tidy: {} crates, {} files, no violation", FLOORS.len(), files.len());
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What the crates of the workspace depend on.
struct Graph {
    /// Direct dependencies, without those of tests.
    direct: BTreeMap<String, BTreeSet<String>>,
    /// Everything that is linked, transitively.
    all: BTreeMap<String, BTreeSet<String>>,
}

fn dependencies(root: &Path) -> Result<Graph, String> {
    let tree = |depth: &[&str], package: &str| {
        let output = Command::new("cargo")
            .current_dir(root)
            .args([
                "tree",
                "--locked",
                "--offline",
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--format",
                "{p}",
            ])
            .args(["--package", package])
            .args(depth)
            .output()
            .map_err(|e| format!("cannot run cargo tree: {e}"))?;
        if !output.status.success() {
            return Err(format!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text.lines().skip(1).filter_map(|l| l.split_whitespace().next()).map(str::to_owned);
        Ok(names.collect::<BTreeSet<_>>())
    };
    let mut graph = Graph { direct: BTreeMap::new(), all: BTreeMap::new() };
    for (name, _) in FLOORS {
        graph.direct.insert((*name).into(), tree(&["--depth", "1"], name)?);
        graph.all.insert((*name).into(), tree(&[], name)?);
    }
    Ok(graph)
}

fn check_floors(graph: &Graph, violations: &mut Vec<String>) {
    let floor = |name: &str| FLOORS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f);
    for (name, dependencies) in &graph.direct {
        for dependency in dependencies {
            if let (Some(own), Some(other)) = (floor(name), floor(dependency))
                && other >= own
            {
                violations.push(format!("{name} (floor {own}) depends on {dependency} (floor {other})"));
            }
            if dependency == "k8s-openapi" && name != NAMES_KUBERNETES_TYPES {
                violations.push(format!("{name} names k8s-openapi; only {NAMES_KUBERNETES_TYPES} does"));
            }
        }
    }
    for name in LIGHT {
        for heavy in HEAVY {
            if graph.all.get(*name).is_some_and(|all| all.contains(*heavy)) {
                violations.push(format!("{name} must stay light but pulls in {heavy}"));
            }
        }
    }
}

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("xtask")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn check_file(root: &Path, file: &Path, violations: &mut Vec<String>) {
    let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return violations.push(format!("{name}: {error}")),
    };
    let lines = text.lines().count();
    if lines > MAX_LINES {
        violations.push(format!("{name} has {lines} lines; two rooms in one? (limit {MAX_LINES})"));
    }
    if text.contains('\t') {
        violations.push(format!("{name} has a tab"));
    }
    if name.ends_with("xtask/src/tidy.rs") {
        return;
    }
    for macro_name in ["todo!(", "unimplemented!(", "dbg!("] {
        if text.contains(macro_name) {
            violations.push(format!("{name} has {macro_name}…)"));
        }
    }
    let may = name.contains("/tests/") || UNSAFE.iter().any(|c| name.starts_with(&format!("crates/{c}/")));
    for (number, line) in text.lines().enumerate() {
        let code = line.trim_start();
        let is_unsafe =
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
        if !is_unsafe || code.starts_with("//") {
            continue;
        }
        if !may {
            violations.push(format!("{name}:{} has unsafe code", number + 1));
        } else if !text
            .lines()
            .take(number + 1)
            .collect::<Vec<_>>()
            .iter()
            .rev()
            .take(6)
            .any(|l| l.contains("SAFETY:"))
        {
            violations.push(format!("{name}:{} has unsafe code without `// SAFETY:`", number + 1));
        }
    }
}
