//! nftables against the kernel: what is programmed is what is read back, by this crate and by `nft`.

#[path = "support/every_form.rs"]
mod every_form;
mod support;

use every_form::{assert_same, canonical, ip, table};
use sluice_netlink::nft::*;
use sluice_netlink::{Protocol, Socket};
use support::{isolated, program};

fn socket() -> Socket {
    Socket::open(Protocol::Netfilter).unwrap()
}

fn read(socket: &mut Socket, name: &str) -> Table {
    read_table(socket, Family::Inet, name).unwrap().unwrap()
}

#[test]
fn every_form_reads_back() {
    isolated("every_form_reads_back", || {
        let mut socket = socket();
        let want = canonical(table("t"));
        diff(&Table::new(Family::Inet, "t"), &table("t")).unwrap().apply(&mut socket).unwrap();
        let got = read(&mut socket, "t");
        assert_same(&got, &want);
        assert!(diff(&got, &table("t")).unwrap().is_empty());
        assert!(diff(&table("t"), &got).unwrap().is_empty());
    });
}

#[test]
fn text_and_netlink_agree() {
    isolated("text_and_netlink_agree", || {
        let mut socket = socket();
        let want = canonical(table("t"));
        let Some(result) = program("nft", &["-f", "-"], &table_text(&want)) else { return };
        result.unwrap_or_else(|error| panic!("{error}\n{}", table_text(&want)));
        assert_same(&canonical(read(&mut socket, "t")), &want);

        // What netlink programs, nft prints; what it prints, it reads; and that is still the same table.
        apply(&mut socket, &Transaction::recreate(&table("t"))).unwrap();
        let listed = program("nft", &["list", "table", "inet", "t"], "").unwrap().unwrap();
        apply(&mut socket, &Transaction::delete(Family::Inet, "t")).unwrap();
        assert_eq!(read_table(&mut socket, Family::Inet, "t").unwrap(), None);
        program("nft", &["-f", "-"], &listed).unwrap().unwrap_or_else(|error| panic!("{error}\n{listed}"));
        assert_same(&canonical(read(&mut socket, "t")), &want);
        let _ = ip("10.0.0.1");
    });
}
