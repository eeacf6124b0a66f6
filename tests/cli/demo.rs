//! `receptor demo`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::World;

#[test]
fn the_demo_does_all_it_shows_and_leaves_nothing() {
    let world = World::empty();
    fs::create_dir(world.path("tmp")).unwrap();
    let mut command = world.command(&["demo"]);
    let said = crate::harness::finish(command.env("TMPDIR", world.path("tmp"))).ok();
    for shown in
        ["6 of 6 up", "→ edge-2", "WORK FOR AN EDGE", "killed", "checksum agrees", "cleaned up"]
    {
        assert!(said.contains(shown), "no {shown:?} in {said}");
    }
    assert_eq!(fs::read_dir(world.path("tmp")).unwrap().count(), 0, "a file is left");
    assert_eq!(processes_of(&world), Vec::<String>::new(), "a process is left");
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let world = World::empty();
    fs::create_dir(world.path("tmp")).unwrap();
    let mut command = world.command(&["demo"]);
    command.env("TMPDIR", world.path("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = command.spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("transfer")), "it ended before");
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    assert_eq!(lines.filter(|line| line.starts_with("complete")).count(), 0);
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    assert_eq!(fs::read_dir(world.path("tmp")).unwrap().count(), 0, "a file is left");
    assert_eq!(processes_of(&world), Vec::<String>::new(), "a process is left");
}

/// The command lines of processes that have to do with a world.
fn processes_of(world: &World) -> Vec<String> {
    let dir = world.path("").display().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let lines = processes.filter_map(|process| fs::read(process.ok()?.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&dir))
        .collect()
}
