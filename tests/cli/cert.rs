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
