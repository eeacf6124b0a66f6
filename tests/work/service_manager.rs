//! A stand-in for systemd, under the ways in which it stops a service.
//!
//! | `KillMode=` | at a stop |
//! |---|---|
//! | `process` | SIGTERM to the node alone; what it leaves behind is not touched |
//! | `mixed` | SIGTERM to the node alone; when it has exited, SIGKILL to all that is left |
//! | `control-group` | SIGTERM to all; SIGKILL to what is left |

use rustix::process::Signal;

use crate::harness::until;
use crate::lab::{Lab, Role};
use crate::processes::{family, runs, signal, supervisors};

#[test]
fn with_kill_mode_process_jobs_survive_a_restart_of_the_service() {
    let mut lab = Lab::running();
    let id = begun(&lab, "job:gate");
    let before = supervisors(&lab.edge_units());
    stop(&mut lab);
    assert!(runs(before[0].pid), "it is not touched");
    lab.start(Role::Edge);
    lab.world.write("open", "");
    lab.work(&["wait", &id]).ok();
    assert_eq!(lab.work(&["results", &id]).ok(), "started\nended\n");
    assert_eq!(lab.starts().len(), 1);
}

#[test]
fn with_kill_mode_mixed_jobs_are_lost_at_a_restart_of_the_service() {
    let mut lab = Lab::running();
    let id = begun(&lab, "job:long");
    let before = members(&lab);
    stop(&mut lab);
    before.iter().for_each(|pid| signal(*pid, Signal::KILL));
    lab.start(Role::Edge);
    assert!(lab.work(&["wait", &id]).failed(1).contains("lost"));
    assert_eq!(lab.starts().len(), 1);
}

#[test]
fn with_kill_mode_control_group_jobs_end_and_that_is_recorded() {
    let mut lab = Lab::running();
    let id = begun(&lab, "job:long");
    let before = members(&lab);
    before.iter().for_each(|pid| signal(*pid, Signal::TERM));
    stop(&mut lab);
    until("all have ended", || before.iter().all(|pid| !runs(*pid)).then_some(()));
    lab.start(Role::Edge);
    assert_eq!(lab.work(&["wait", &id]).code, Some(128 + 15));
    assert_eq!(lab.status(&id)["signal"], 15);
}

/// Stops the node as all of them do first.
fn stop(lab: &mut Lab) {
    let node = lab.take(Role::Edge);
    node.signal(Signal::TERM);
    assert_eq!(node.ended(), Some(0));
}

/// What of the service is left when the node is gone.
fn members(lab: &Lab) -> Vec<u32> {
    supervisors(&lab.edge_units()).iter().flat_map(|supervisor| family(supervisor.pid)).collect()
}

/// Submits a job; returns its id once its command runs.
fn begun(lab: &Lab, directive: &str) -> String {
    let id = lab.work(&["submit", "edge", directive, "tag"]).ok().trim().to_owned();
    until("it runs", || (!lab.work(&["results", &id]).stdout.is_empty()).then_some(()));
    id
}
