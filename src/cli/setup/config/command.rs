//! `receptor config`: checks and shows the settings of a node.

use std::io::{self, Write as _};

use super::given::Given;
use super::{NodeConfig, show};
use crate::cli::args::{ConfigArgs, ConfigCommand};
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;

/// Runs `receptor config`.
pub(in crate::cli) fn run(command: ConfigCommand, env: &Env) -> Result<(), Failure> {
    let text = match command {
        ConfigCommand::Check(args) => {
            let config = NodeConfig::check(given(*args, env)?, env)?;
            format!("the settings of node {} are valid\n", config.id)
        }
        ConfigCommand::Show(args) => {
            let given = given(*args, env)?;
            let text = show::text(&given);
            NodeConfig::check(given, env)?;
            text
        }
    };
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Failure::failed(format!("cannot write: {error}")))
}

fn given(args: ConfigArgs, env: &Env) -> Result<Given, Failure> {
    let mut node = args.node;
    node.config = args.file.or(node.config);
    Given::collect(node, env)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::NodeArgs;

    fn flags() -> NodeArgs {
        NodeArgs {
            id: Some("edge-1".to_owned()),
            certs: Some("/etc/receptor".into()),
            peer: vec!["relay@r:4433".to_owned()],
            control: Some("/run/c.sock".into()),
            ..NodeArgs::default()
        }
    }

    fn shown(args: NodeArgs, env: &Env) -> String {
        show::text(&Given::collect(args, env).unwrap())
    }

    #[test]
    fn what_is_shown_is_a_file_with_the_same_settings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.toml");
        let texts = [
            "",
            "id = \"a\"\ncerts = \"c\"\nlisten = [\":1\"]\nlisten-tcp = [\":443\"]\ntransit = true\ntransit-rate = 5_000\n\
             relays = [\"role:relay\"]\ncrl = [\"c.pem\"]\ndeny = [\"x\"]\nallow = [\"y\"]\npolicy = \"p.toml\"\nno-direct = true\nexternal = [\"203.0.113.7:4433\"]\n\
             cost = \"round-trip\"\nliveness = \"metered\"\ncongestion = \"westwood\"\ngrace = 2.5\n\
             peer-timeout = \"900ms\"\nlog-format = \"json\"\ndata-dir = \"d \\\"q\\\" \\t\"\n\
             [cost-to]\n\"a@b:c\" = 9\n\
             [command]\n\"a:line\" = \"tr a-z A-Z\"\n\"a:words\" = [\"ls\", \"with space\"]\n\
             [command.\"a:table\"]\nrun = \"cat\"\nmax-output = \"2G\"\ngrace = 1\nenv = { A = \"b=c\" }\n\
             inherit-env = [\"PATH\"]\ndir = \"w\"\nstderr = \"log\"\n\
             [units]\nmax-running = 4\nmax-payload = \"500M\"\nmax-run-for = \"2h\"\nexecute = false\n",
        ];
        let policy = "[[allow]]\nfrom = \"a\"\nto = \"echo\"\n";
        std::fs::write(dir.path().join("p.toml"), policy).unwrap();
        for text in texts {
            std::fs::write(&path, text).unwrap();
            let args = NodeArgs { config: Some(path.clone()), ..flags() };
            let config = NodeConfig::resolve(args.clone(), &Env::default()).unwrap();
            let copy = dir.path().join("copy.toml");
            std::fs::write(&copy, shown(args, &Env::default())).unwrap();
            let args = NodeArgs { config: Some(copy), ..NodeArgs::default() };
            let copied = NodeConfig::resolve(args, &Env::default()).unwrap();
            let differences = config.differences(&copied);
            let defaulted = config.peer_timeout.is_none().then_some("peer-timeout");
            assert_eq!(differences, Vec::from_iter(defaulted), "{text}");
            let timeout = crate::transport::DEFAULT_PEER_TIMEOUT;
            assert_eq!(copied.peer_timeout, config.peer_timeout.or(Some(timeout)));
        }
    }

    #[test]
    fn each_setting_is_shown_with_its_origin() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.toml");
        std::fs::write(&path, "grace = \"9s\"\n\ntransit = true\n").unwrap();
        let env = Env::from([("RECEPTOR_COST", "7")]);
        let text = shown(NodeArgs { config: Some(path.clone()), ..flags() }, &env);
        let path = path.display();
        for line in [
            "id = \"edge-1\"  # --id".to_owned(),
            "  \"relay@r:4433\",  # --peer".to_owned(),
            "cost = \"7\"  # RECEPTOR_COST".to_owned(),
            format!("grace = \"9s\"  # {path}, line 1"),
            format!("transit = true  # {path}, line 3"),
            "lan = false  # default".to_owned(),
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("transit-rate"), "what has no default is left out");
    }
}
