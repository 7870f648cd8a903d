use std::cell::Cell;
use std::process::{Command, Stdio};

use super::*;
use crate::identity::ContainerId;

thread_local!(static NOW: Cell<u64> = const { Cell::new(1_000) });

fn clock() -> Duration {
    Duration::from_secs(NOW.get())
}

fn open(directory: &Path) -> Store {
    open_in(directory, "boot-1")
}

fn open_in(directory: &Path, boot: &str) -> Store {
    Store::open_in_boot(directory, BootId::from_text(boot), clock).unwrap()
}

fn id(name: &str) -> AttachmentId {
    AttachmentId {
        container: ContainerId::new(name).unwrap(),
        interface: InterfaceName::new("eth0").unwrap(),
    }
}

fn range(text: &str) -> PodRange {
    PodRange { subnet: text.parse().unwrap(), gateway: None }
}

fn try_reserve(store: &mut Store, name: &str, ports: &[HostPort]) -> Result<Reservation, NetworkError> {
    let attachment = id(name);
    let host_interface = attachment.host_interface("slu").unwrap();
    store.transaction()?.reserve(&ReserveRequest {
        attachment: &attachment,
        network: "k8s-pod-network",
        pod: None,
        host_interface: &host_interface,
        addresses: AddressRequest::FromRanges,
        host_ports: ports,
    })
}

/// ADD without a kernel; the first address as text.
fn add(store: &mut Store, name: &str) -> String {
    let reservation = try_reserve(store, name, &[]).unwrap();
    store.transaction().unwrap().commit(&id(name)).unwrap();
    reservation.addresses[0].to_string()
}

fn delete(store: &mut Store, name: &str, flushed: bool) {
    let mut transaction = store.transaction().unwrap();
    assert!(transaction.begin_release(&id(name)).unwrap().is_some());
    transaction.finish_release(&id(name), flushed).unwrap();
}

fn publish(store: &mut Store, ranges: &[&str]) {
    let ranges: Vec<_> = ranges.iter().map(|r| range(r)).collect();
    store.transaction().unwrap().publish_ranges(&ranges).unwrap();
}

/// The attachments as text, sorted: `name phase addresses`.
fn listing(store: &mut Store) -> Vec<String> {
    let transaction = store.transaction().unwrap();
    let mut lines: Vec<_> = transaction
        .entries()
        .map(|e| {
            format!("{} {} {:?}", e.reservation.attachment.container, e.phase.name(), e.reservation.addresses)
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn addresses_go_round_robin_in_both_families() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    assert!(matches!(try_reserve(&mut store, "x", &[]), Err(NetworkError::NoRange)));
    publish(&mut store, &["fd00:1::/64", "10.1.0.0/29"]);
    let first = try_reserve(&mut store, "a", &[]).unwrap();
    assert_eq!(
        first.addresses,
        ["fd00:1::2".parse::<IpAddr>().unwrap(), "10.1.0.2".parse().unwrap()],
        "network address and gateway are skipped, the primary family comes first"
    );
    delete(&mut store, "a", true);
    let mut store = open(directory.path());
    let next = try_reserve(&mut store, "b", &[]).unwrap();
    assert_eq!(next.addresses[1].to_string(), "10.1.0.3", "the position survives a restart");
}

#[test]
fn a_full_range_says_so_and_wraps_around() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    publish(&mut store, &["10.1.0.0/29"]);
    let given: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| add(&mut store, name)).collect();
    assert_eq!(given, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
    let full = try_reserve(&mut store, "f", &[]).unwrap_err();
    assert_eq!(full.cni_code(), 100);
    assert!(full.to_string().contains("5 in use, 0 waiting"), "{full}");
    delete(&mut store, "c", true);
    assert_eq!(add(&mut store, "f"), "10.1.0.4", "nothing else is free, so 30 s are waived");
}

#[test]
fn a_freed_address_rests_30_seconds_and_until_it_is_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    publish(&mut store, &["10.1.0.0/29"]);
    for name in ["a", "b", "c"] {
        add(&mut store, name);
    }
    delete(&mut store, "a", true);
    delete(&mut store, "b", false);
    assert_eq!([add(&mut store, "d"), add(&mut store, "e")], ["10.1.0.5", "10.1.0.6"]);
    NOW.set(NOW.get() + 31);
    assert_eq!(add(&mut store, "f"), "10.1.0.2", "rested");
    let unflushed = try_reserve(&mut store, "g", &[]).unwrap_err();
    assert_eq!(unflushed.cni_code(), 100, "b's address was never flushed: {unflushed}");
    let mut store = open(directory.path());
    let mut transaction = store.transaction().unwrap();
    let left = transaction.unflushed();
    assert_eq!(left, ["10.1.0.3".parse::<IpAddr>().unwrap()]);
    transaction.mark_flushed(&left).unwrap();
    drop(transaction);
    assert_eq!(add(&mut store, "g"), "10.1.0.3");
}

#[test]
fn the_life_of_an_attachment() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    publish(&mut store, &["10.1.0.0/24"]);
    let port = HostPort { protocol: 6, address: None, port: 80 };
    try_reserve(&mut store, "a", &[port]).unwrap();
    assert_eq!(try_reserve(&mut store, "a", &[]).unwrap_err().cni_code(), 101);
    let narrow = HostPort { address: Some("192.0.2.1".parse().unwrap()), ..port };
    let taken = try_reserve(&mut store, "b", &[narrow]).unwrap_err();
    assert_eq!((taken.cni_code(), taken.to_string().contains("a/eth0")), (103, true), "{taken}");
    assert_eq!(
        try_reserve(&mut store, "b", &[HostPort { port: 81, ..narrow }, HostPort { port: 81, ..port }])
            .unwrap_err()
            .cni_code(),
        103
    );
    assert!(try_reserve(&mut store, "b", &[HostPort { protocol: 17, ..port }]).is_ok());

    store.transaction().unwrap().commit(&id("a")).unwrap();
    assert!(matches!(store.transaction().unwrap().commit(&id("a")), Err(NetworkError::Phase { .. })));
    assert!(matches!(store.transaction().unwrap().commit(&id("zz")), Err(NetworkError::Unknown(_))));
    delete(&mut store, "a", true);
    assert!(store.transaction().unwrap().begin_release(&id("a")).unwrap().is_none(), "DEL of an unknown one");
    store.transaction().unwrap().finish_release(&id("a"), true).unwrap();
    assert!(try_reserve(&mut store, "c", &[port]).is_ok(), "the port is free again");
}

#[test]
fn two_processes_see_each_others_records() {
    let directory = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (open(directory.path()), open(directory.path()));
    publish(&mut one, &["10.1.0.0/16"]);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..400 {
        // Enough rounds that the log is rewritten under the other's feet several times.
        for (index, store) in [&mut one, &mut two].into_iter().enumerate() {
            assert!(seen.insert(add(store, &format!("c{round}-{index}"))));
        }
        delete(&mut two, &format!("c{round}-0"), true);
        delete(&mut one, &format!("c{round}-1"), true);
    }
    assert_eq!(listing(&mut one), listing(&mut two));
    let size = fs::metadata(directory.path().join("log")).unwrap().len();
    assert!(size < 300_000, "the log was never rewritten: {size} bytes");
}

#[test]
fn a_reboot_frees_everything_and_keeps_the_position() {
    let directory = tempfile::tempdir().unwrap();
    for boot in 0..10 {
        let mut store = open_in(directory.path(), &format!("boot-{boot}"));
        let events = store.take_events();
        if boot > 0 {
            assert!(matches!(events[..], [StoreEvent::Rebooted { records }] if records > 0), "{events:?}");
            assert_eq!(listing(&mut store), Vec::<String>::new());
        }
        publish(&mut store, &["10.1.0.0/24"]);
        let given: std::collections::BTreeSet<_> =
            (0..253).map(|n| add(&mut store, &format!("c{n}"))).collect();
        assert_eq!(given.len(), 253);
        assert_eq!(try_reserve(&mut store, "one-more", &[]).unwrap_err().cni_code(), 100);
    }
    let mut store = open_in(directory.path(), "boot-z");
    publish(&mut store, &["10.1.0.0/23"]);
    assert_eq!(add(&mut store, "x"), "10.1.0.255", "behind the last one of the boot before");
}

#[test]
fn a_moved_pod_cidr_stays_routed_until_it_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    publish(&mut store, &["10.1.0.0/24"]);
    add(&mut store, "a");
    publish(&mut store, &["10.2.0.0/24"]);
    assert_eq!(add(&mut store, "b"), "10.2.0.2");
    let routed = |store: &mut Store| {
        store.transaction().unwrap().routed_cidrs().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(routed(&mut store), ["10.2.0.0/24", "10.1.0.0/24"]);
    delete(&mut store, "a", true);
    assert_eq!(routed(&mut store), ["10.2.0.0/24"]);
}

/// A store with every kind of record, and the listing after each of its records.
fn sample(directory: &Path) -> (Vec<u8>, Vec<(usize, Vec<String>)>) {
    let log = directory.join("log");
    let mut store = open(directory);
    let mut states = vec![(0, Vec::new())];
    let mut note = |store: &mut Store| {
        let listed = listing(store);
        states.push((fs::metadata(&log).unwrap().len() as usize, listed));
    };
    publish(&mut store, &["10.1.0.0/24"]);
    note(&mut store);
    for name in ["a", "b"] {
        try_reserve(
            &mut store,
            name,
            &[HostPort { protocol: 6, address: None, port: 80 + name.len() as u16 }],
        )
        .or_else(|_| try_reserve(&mut store, name, &[]))
        .unwrap();
        note(&mut store);
        store.transaction().unwrap().commit(&id(name)).unwrap();
        note(&mut store);
    }
    store.transaction().unwrap().begin_release(&id("a")).unwrap();
    note(&mut store);
    store.transaction().unwrap().finish_release(&id("a"), false).unwrap();
    note(&mut store);
    store.transaction().unwrap().mark_flushed(&["10.1.0.2".parse().unwrap()]).unwrap();
    note(&mut store);
    (fs::read(&log).unwrap(), states)
}

#[test]
fn a_log_cut_at_any_byte_keeps_its_good_prefix() {
    let origin = tempfile::tempdir().unwrap();
    let (bytes, states) = sample(origin.path());
    let directory = tempfile::tempdir().unwrap();
    for length in 0..=bytes.len() {
        let _ = fs::remove_file(directory.path().join("log.bad"));
        fs::write(directory.path().join("log"), &bytes[..length]).unwrap();
        let mut store = open(directory.path());
        let (kept, expected) = states.iter().rev().find(|(end, _)| *end <= length).unwrap();
        assert_eq!(&listing(&mut store), expected, "cut at {length}");
        match &store.take_events()[..] {
            [] => assert_eq!(*kept, length),
            [StoreEvent::Damaged(damage)] => {
                assert_eq!((damage.kept as usize, damage.lost as usize), (*kept, length - kept));
                assert_eq!(fs::read(&damage.moved_to).unwrap(), bytes[*kept..length]);
            }
            other => panic!("{other:?}"),
        }
        // And the store works: a later reader finds what is written behind the cut.
        publish(&mut store, &["10.9.0.0/24"]);
        add(&mut store, "after");
        assert!(listing(&mut open(directory.path())).iter().any(|line| line.starts_with("after ")));
    }
}

#[test]
fn a_changed_byte_never_gives_a_state_that_was_not_there() {
    let origin = tempfile::tempdir().unwrap();
    let (bytes, states) = sample(origin.path());
    let directory = tempfile::tempdir().unwrap();
    for at in 0..bytes.len() {
        let _ = fs::remove_file(directory.path().join("log.bad"));
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        fs::write(directory.path().join("log"), &changed).unwrap();
        let (_, expected) = states.iter().rev().find(|(end, _)| *end <= at).unwrap();
        assert_eq!(&listing(&mut open(directory.path())), expected, "byte {at}");
    }
}

#[test]
fn a_writer_is_the_process_and_not_its_number() {
    let own = Writer::current().unwrap();
    assert!(own.is_alive());
    assert!(!Writer { start: own.start + 1, ..own }.is_alive());
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let start = std::iter::repeat_with(|| fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap())
        .map(|stat| stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap())
        .next()
        .unwrap();
    let other = Writer { pid: child.id(), start };
    assert!(other.is_alive());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!other.is_alive());
}

/// The environment variable that makes this test binary the victim of [`kill_9_leaves_a_store_that_works`].
const VICTIM: &str = "SLUICE_STORE_VICTIM";

const STEP: &str = "SLUICE_STORE_STEP";

/// The victim and a reader of what it prints, after it has printed `until`.
fn spawn_victim(directory: &Path, step: &str, until: &str) -> std::process::Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["store::tests::victim_of_kill_9", "--exact", "--nocapture", "--test-threads=1"])
        .env(VICTIM, directory)
        .env(STEP, step)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains(until)));
    child
}

#[test]
fn an_intent_is_an_orphan_as_soon_as_its_writer_is_dead() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    publish(&mut store, &["10.1.0.0/24"]);
    for step in ["intent", "release"] {
        let mut child = spawn_victim(directory.path(), step, "there");
        assert_eq!(store.transaction().unwrap().orphans(), [], "a live writer is left alone");
        child.kill().unwrap();
        child.wait().unwrap();
        let orphans = store.transaction().unwrap().orphans();
        assert_eq!(orphans.len(), 1, "{step}");
        assert_eq!(orphans[0].attachment, id(&format!("v-{step}")));
        delete(&mut store, &format!("v-{step}"), true);
    }
}

/// Not a test of its own: what the killed child does. Without the variable there is nothing to do.
#[test]
fn victim_of_kill_9() {
    let Some(directory) = std::env::var_os(VICTIM) else { return };
    let mut store = Store::open(Path::new(&directory)).unwrap();
    println!("ready");
    // With a step in the name the victim waits there for its death; else it runs round and round.
    for (step, name) in [("intent", "v-intent"), ("release", "v-release")] {
        if std::env::var(STEP).as_deref() == Ok(step) {
            try_reserve(&mut store, name, &[]).unwrap();
            if step == "release" {
                store.transaction().unwrap().commit(&id(name)).unwrap();
                store.transaction().unwrap().begin_release(&id(name)).unwrap();
            }
            println!("there");
            std::thread::park();
        }
    }
    for round in 0.. {
        let name = format!("v{}-{round}", std::process::id());
        try_reserve(&mut store, &name, &[]).unwrap();
        store.transaction().unwrap().commit(&id(&name)).unwrap();
        delete(&mut store, &name, true);
    }
}

#[test]
fn kill_9_leaves_a_store_that_works() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    publish(&mut store, &["10.1.0.0/24"]);
    let mut seen = 0;
    for round in 0u64..25 {
        let mut child = spawn_victim(directory.path(), "", "ready");
        // A different moment in each round: after so many transactions of our own, which contend for the lock.
        for _ in 0..round * 3 {
            store.transaction().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let mut transaction = store.transaction().unwrap();
        for orphan in transaction.orphans() {
            seen += 1;
            transaction.begin_release(&orphan.attachment).unwrap();
            transaction.finish_release(&orphan.attachment, true).unwrap();
        }
        let left: Vec<_> = transaction.entries().filter(|e| e.phase != Phase::Committed).cloned().collect();
        assert_eq!(left, [], "no intent is left");
        // What the victim had committed but not deleted is a complete attachment, at most one per round.
        let committed: Vec<_> = transaction.entries().map(|e| e.reservation.attachment.clone()).collect();
        assert!(committed.len() <= 1, "{committed:?}");
        drop(transaction);
        for attachment in committed {
            delete(&mut store, attachment.container.as_str(), true);
        }
        let name = format!("own-{round}");
        add(&mut store, &name);
        delete(&mut store, &name, true);
        assert_eq!(listing(&mut Store::open(directory.path()).unwrap()), Vec::<String>::new());
    }
    println!("{seen} intents of dead writers in 25 rounds");
}
