//! `receptor cert`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::World;

#[test]
fn init_and_issue_make_keys_that_only_their_owner_can_read() {
    let world = World::empty();
    let said =
        world.run(&["cert", "init", "--dir", "certs", "--name", "test mesh", "--days", "10"]).ok();
    assert!(said.contains("valid for 10 days") && said.contains("receptor cert issue"), "{said}");
    let said = world.run(&["cert", "issue", "edge-1", "--dir", "certs", "--days", "5"]).ok();
    assert!(
        said.contains("valid for 5 days") && said.contains("receptor node --id edge-1"),
        "{said}"
    );
    for key in ["certs/ca.key", "certs/edge-1.key"] {
        assert_eq!(
            fs::metadata(world.path(key)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{key}"
        );
    }
    for certificate in ["certs/ca.crt", "certs/edge-1.crt"] {
        assert!(fs::read_to_string(world.path(certificate)).unwrap().contains("BEGIN CERTIFICATE"));
    }
}

#[test]
fn a_node_is_not_issued_more_days_than_its_authority_has() {
    let world = World::empty();
    world.run(&["cert", "init", "--dir", "certs", "--days", "10"]).ok();
    let said = world.run(&["cert", "issue", "edge-1", "--dir", "certs", "--days", "90"]).ok();
    assert!(said.contains("valid for 10 days, no longer than the CA itself"), "{said}");
}

#[test]
fn keys_that_are_there_are_not_overwritten() {
    let world = World::of(&["edge-1"]);
    let before = ["certs/ca.key", "certs/edge-1.key"].map(|key| fs::read(world.path(key)).unwrap());
    let said = world.run(&["cert", "init", "--dir", "certs"]).failed(1);
    assert!(said.contains("exists already"), "{said}");
    let said = world.run(&["cert", "issue", "edge-1", "--dir", "certs"]).failed(1);
    assert!(said.contains("certs/edge-1.key"), "{said}");
    assert_eq!(
        before,
        ["certs/ca.key", "certs/edge-1.key"].map(|key| fs::read(world.path(key)).unwrap())
    );
}

#[test]
fn a_node_runs_on_a_certificate_for_a_key_that_never_left_it() {
    let world = World::empty();
    world.run(&["cert", "init", "--dir", "ca"]).ok();
    let said = world.run(&["cert", "request", "edge-1", "--dir", "node"]).ok();
    assert!(said.contains("node/edge-1.csr") && said.contains("receptor cert sign"), "{said}");
    let mode = fs::metadata(world.path("node/edge-1.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let request = ["--request", "node/edge-1.csr"];
    let sign = ["cert", "sign", "edge-1", "--dir", "ca", "--days", "5", "--role", "relay"];
    let said = world.run(&[&sign[..], &request].concat()).ok();
    assert!(said.contains("valid for 5 days, with role relay"), "{said}");
    assert!(!world.path("ca/edge-1.key").exists());

    for file in ["ca.crt", "edge-1.crt"] {
        fs::copy(world.path(&format!("ca/{file}")), world.path(&format!("node/{file}"))).unwrap();
    }
    fs::rename(world.path("node"), world.path("certs")).unwrap();
    world.node("edge-1", &[]);
}

#[test]
fn a_request_is_signed_only_for_its_node_and_once() {
    let world = World::empty();
    world.run(&["cert", "init", "--dir", "certs"]).ok();
    world.run(&["cert", "request", "edge-1", "--dir", "certs"]).ok();
    let key = fs::read(world.path("certs/edge-1.key")).unwrap();
    world.run(&["cert", "request", "edge-1", "--dir", "certs"]).ok();
    assert_eq!(key, fs::read(world.path("certs/edge-1.key")).unwrap());

    let other = ["cert", "sign", "controller", "--dir", "certs", "--request", "certs/edge-1.csr"];
    let said = world.run(&other).failed(2);
    assert!(said.contains("requests a certificate for edge-1, not for controller"), "{said}");
    let sign = ["cert", "sign", "edge-1", "--dir", "certs"];
    world.run(&sign).ok();
    let said = world.run(&sign).failed(1);
    assert!(said.contains("certs/edge-1.crt exists already; move it away first"), "{said}");
    let said = world.run(&["cert", "sign", "edge-2", "--dir", "certs"]).failed(2);
    assert!(said.contains("certs/edge-2.csr"), "{said}");
    let key = ["cert", "sign", "edge-1", "--dir", "certs", "--request", "certs/edge-1.key"];
    let said = world.run(&key).failed(2);
    assert!(said.contains("has to stay on its node"), "{said}");
}

#[test]
fn issuing_without_an_authority_names_the_missing_file() {
    let world = World::empty();
    let said = world.run(&["cert", "issue", "edge-1", "--dir", "nowhere"]).failed(2);
    assert!(said.contains("nowhere/ca.crt"), "{said}");
}

#[test]
fn a_name_that_is_no_node_id_is_a_usage_error() {
    let said = World::empty().run(&["cert", "issue", "a/b", "--dir", "certs"]).failed(2);
    assert!(said.contains("\"a/b\" is not a node id: "), "{said}");
}
