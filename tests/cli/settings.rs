//! Settings: flag over environment over file over default, and errors that say where and what.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::Signal;

use crate::harness::{Node, World, finish, until};

#[test]
fn an_unknown_key_in_the_file_names_the_file_the_line_and_what_is_allowed() {
    let world = World::empty();
    world.write("r.toml", "id = \"edge-1\"\n\nlisten-on = [\"127.0.0.1:0\"]\n");
    let said = world.run(&["node", "--config", "r.toml"]).failed(2);
    assert!(said.contains("r.toml, line 3: ") && said.contains("`listen`"), "{said}");
}

#[test]
fn a_bad_value_in_the_file_names_the_file_the_line_and_what_is_allowed() {
    let world = World::empty();
    world.write(
        "r.toml",
        "id = \"edge-1\"\ncerts = \"certs\"\nlisten = [\n  \"127.0.0.1:0\",\n  \"4433\",\n]\n",
    );
    let said = world.run(&["node", "--config", "r.toml"]).failed(2);
    assert!(said.contains("r.toml, line 5: ") && said.contains("0.0.0.0:4433"), "{said}");
}

#[test]
fn a_bad_value_in_the_environment_names_the_variable() {
    let world = World::empty();
    let mut command = world.command(&["node", "--id", "a", "--certs", "certs"]);
    let said = finish(command.env("RECEPTOR_LISTEN", "nonsense")).failed(2);
    assert!(said.contains("RECEPTOR_LISTEN: \"nonsense\" is not an address"), "{said}");
}

#[test]
fn a_bad_flag_is_named() {
    let world = World::empty();
    let said = world.run(&["node", "--id", "a", "--certs", "certs", "--peer", "nowhere"]).failed(2);
    assert!(said.contains("--peer: "), "{said}");
    let said = world.run(&["ping", "a", "--count", "0"]).failed(2);
    assert!(said.contains("--count"), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let said = World::empty().run(&["node", "--config", "absent.toml"]).failed(2);
    assert!(said.contains("absent.toml"), "{said}");
}

#[test]
fn settings_are_checked_and_shown_without_running_a_node() {
    let world = World::empty();
    world.write("r.toml", "id = \"edge-1\"\ncerts = \"certs\"\n\npeer = [\"r:4433\"]\n");
    let said = world.run(&["config", "check", "r.toml"]).ok();
    assert_eq!(said, "the settings of node edge-1 are valid\n");
    let mut command = world.command(&["config", "show", "r.toml", "--transit"]);
    let shown = finish(command.env("RECEPTOR_GRACE", "9s")).ok();
    for line in [
        "id = \"edge-1\"  # r.toml, line 1",
        "  \"r:4433\",  # r.toml, line 4",
        "transit = true  # --transit",
        "grace = \"9s\"  # RECEPTOR_GRACE",
        "lan = false  # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\nis not in\n{shown}");
    }
    world.write("r.toml", "id = \"edge-1\"\ncerts = \"certs\"\nlisten = [\"4433\"]\n");
    for action in ["check", "show"] {
        let done = world.run(&["config", action, "r.toml"]);
        assert_eq!(String::from_utf8_lossy(&done.stdout), "", "{action}");
        let said = done.failed(2);
        assert!(said.contains("r.toml, line 3: \"4433\" is not an address"), "{said}");
    }
}

#[test]
fn certificates_that_are_not_there_are_named() {
    let said =
        World::empty().run(&["node", "--id", "a", "--certs", "certs", "--listen", ":0"]).failed(2);
    assert!(said.contains("certs/a.crt"), "{said}");
}

#[test]
fn help_shows_defaults_and_exit_statuses() {
    let world = World::empty();
    let help = world.run(&["--help"]).ok();
    assert!(help.contains("no route, unreachable"), "{help}");
    let help = world.run(&["node", "--help"]).ok();
    assert!(help.contains("RECEPTOR_DATA_DIR") && help.contains("SIGHUP"), "{help}");
}

#[test]
fn a_table_for_a_command_is_used_and_a_wrong_key_named() {
    let world = World::of(&["a"]);
    let config = |stderr: &str| {
        format!(
            "id = \"a\"\ncerts = \"certs\"\nlisten = [\"127.0.0.1:0\"]\n[command.\"a:b\"]\n\
             run = [\"sh\", \"-c\", \"echo $GREETING; echo aside >&2\"]\nenv = {{ GREETING = \"hello\" }}\n{stderr}\n"
        )
    };
    world.write("r.toml", &config("stderr-to = \"log\""));
    let said = world.run(&["node", "--config", "r.toml"]).failed(2);
    assert!(said.contains("r.toml, line 7: ") && said.contains("`inherit-env`"), "{said}");
    world.write("r.toml", &config("stderr = \"stream\""));
    let _node = Node::start(world.command(&["node", "--config", "r.toml"]));
    let done = world.run(&["send", "a", "a:b"]).ok();
    assert!(done.contains("hello\n") && done.contains("aside\n"), "{done}");
}

#[test]
fn a_reload_logs_which_settings_need_a_restart() {
    let world = World::of(&["a"]);
    let config = "id = \"a\"\ncerts = \"certs\"\nlisten = [\"127.0.0.1:0\"]\n";
    world.write("r.toml", config);
    let node = Node::start(world.command(&["node", "--config", "r.toml"]));
    world.write("r.toml", &format!("{config}cost = 7\ntransit = true\npeer-timeout = 7\n"));
    node.signal(Signal::HUP);
    let line = node.log_line("need a restart");
    assert!(line.contains("transit, cost, peer-timeout"), "{line}");
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn a_reload_applies_peers_and_commands() {
    let world = World::of(&["a", "b", "c"]);
    let (b, c) = (world.node("b", &[]), world.node("c", &[]));
    let file = |peers: &str, commands: &str| {
        let text = format!(
            "id = \"a\"\ncerts = \"certs\"\ncontrol = \"a.sock\"\npeer = [{peers}]\n[command]\n{commands}"
        );
        world.write("r.toml", &text);
    };
    let (b, c) = (format!("\"b@{}\"", b.addr()), format!("\"c@{}\"", c.addr()));
    file(&b, "\"text:say\" = \"echo old\"\n\"text:gone\" = \"cat\"\n");
    let _node = Node::start(world.command(&["node", "--config", "r.toml"]));
    let run = |args: &[&str]| world.run(&[args, &["--control", "a.sock"]].concat());
    let linked = |peer: &str| {
        let links = run(&["status", "--json"]).json()["links"].clone();
        let up = |link: &serde_json::Value| link["peer"] == peer && link["state"] == "up";
        links.as_array().is_some_and(|links| links.iter().any(up))
    };
    until("a is linked to b", || linked("b").then_some(()));
    assert_eq!(run(&["reload"]).ok(), "certificates reloaded\n");

    file(&format!("{b}, {c}"), "\"text:say\" = \"echo new\"\n\"text:more\" = \"cat\"\n");
    let said = run(&["reload"]).ok();
    assert_eq!(said, "certificates reloaded\nin effect: peer, command\n");
    until("a is linked to c", || linked("c").then_some(()));
    assert!(linked("b"), "the link to b stays");
    assert_eq!(run(&["send", "a", "text:say", ""]).ok(), "new\n");
    assert_eq!(run(&["send", "a", "text:more", "x"]).ok(), "x");
    let gone = run(&["send", "a", "text:gone", "x"]).failed(1);
    assert!(gone.contains("does not handle this directive"), "{gone}");
}

#[test]
fn a_reload_of_what_is_not_valid_changes_nothing() {
    let world = World::of(&["a"]);
    let config =
        "id = \"a\"\ncerts = \"certs\"\nlisten = [\"127.0.0.1:0\"]\ncontrol = \"a.sock\"\n";
    let say = |text: &str| format!("[command]\n\"text:say\" = \"echo {text}\"\n");
    world.write("r.toml", &(config.to_owned() + &say("old")));
    let node = Node::start(world.command(&["node", "--config", "r.toml"]));
    let run = |args: &[&str]| world.run(&[args, &["--control", "a.sock"]].concat());
    let elsewhere = config.replace("\"certs\"", "\"elsewhere\"");
    for (config, fault) in
        [(config, "lsten = []\n"), (config, "cost = 0\n"), (config, "grace = \n"), (&elsewhere, "")]
    {
        let faulty = config.to_owned() + fault + &say("new");
        world.write("r.toml", &faulty);
        let said = run(&["reload"]).failed(2);
        assert!(said.contains("r.toml") || said.contains("elsewhere"), "{fault}: {said}");
        let line = node.log_line("not reloaded; the former certificates and settings stay in use");
        assert!(line.contains("ERROR"), "{line}");
        assert_eq!(run(&["send", "a", "text:say", ""]).ok(), "old\n", "{fault}");
    }
}

/// Copies certificates of the fixtures, whose keys have to be private.
fn copy_fixtures(world: &World, names: &[&str]) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/fixtures");
    fs::create_dir(world.path("certs")).expect("a new directory");
    for name in names {
        let to = world.path("certs").join(name);
        fs::copy(fixtures.join(name), &to).expect("a fixture");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("an own file");
    }
}

#[test]
fn whom_a_node_refuses_is_reloaded() {
    let world = World::empty();
    copy_fixtures(
        &world,
        &["ca.crt", "uri.crt", "uri.key", "revoked.crt", "revoked.key", "crl.pem"],
    );
    let config =
        "id = \"uri\"\ncerts = \"certs\"\nlisten = [\"127.0.0.1:0\"]\ncontrol = \"a.sock\"\n";
    world.write("r.toml", config);
    let node = Node::start(world.command(&["node", "--config", "r.toml"]));
    let peer = format!("uri@{}", node.addr());
    let other = ["node", "--id", "revoked", "--certs", "certs", "--peer", &peer];
    let _other = Node::start(world.command(&[&other[..], &["--control", "b.sock"]].concat()));
    let linked = || {
        let links = world.run(&["status", "--json", "--control", "a.sock"]).json()["links"].clone();
        links.as_array().is_some_and(|links| !links.is_empty())
    };
    for setting in
        ["crl = [\"certs/crl.pem\"]\n", "deny = [\"revoked\"]\n", "allow = [\"another\"]\n"]
    {
        until("they are linked", || linked().then_some(()));
        world.write("r.toml", &(config.to_owned() + setting));
        let said = world.run(&["reload", "--control", "a.sock"]).ok();
        let name = setting.split(' ').next().expect("a name");
        assert!(said.contains(&format!("in effect: {name}")), "{said}");
        until("the link is closed", || (!linked()).then_some(()));
        world.write("r.toml", config);
        world.run(&["reload", "--control", "a.sock"]).ok();
    }
    for bad in ["crl = [\"certs/ca.crt\"]\n", "pin = [\"xyz\"]\n", "deny = [\"a b\"]\n"] {
        world.write("r.toml", &(config.to_owned() + bad));
        world.run(&["reload", "--control", "a.sock"]).failed(2);
    }
}
