//! The pages agree with what they describe.

const HELLO: &str = include_str!("../../examples/hello.rs");
const README: &str = include_str!("../../README.md");
const SECURITY: &str = include_str!("../../docs/security.md");

/// Where docs.rs shows the files of the package.
const PACKAGE: &str = "https://docs.rs/crate/receptor-quic/latest/source/";

/// The example below its heading lines.
fn hello() -> &'static str {
    let (_, body) = HELLO.split_once("\n\n").expect("an empty line ends the heading");
    body.trim_end()
}

#[test]
fn the_readme_shows_the_hello_example_as_it_is() {
    assert!(
        README.contains(&format!("```rust\n{}\n```", hello())),
        "paste examples/hello.rs into README.md"
    );
}

#[test]
fn the_crate_documentation_shows_the_hello_example_as_it_is() {
    let shown: Vec<_> = include_str!("../../src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    assert!(shown.join("\n").contains(hello()), "paste examples/hello.rs into src/lib.rs");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "deploy/README.md",
        "docs/cli.md",
        "docs/commands.md",
        "docs/errors.md",
        "docs/from-receptor.md",
        "docs/guarantees.md",
        "docs/nat.md",
        "docs/operations.md",
        "docs/performance.md",
        "docs/policy.md",
        "docs/protocol.md",
        "docs/routing.md",
        "docs/security.md",
        "docs/work.md",
        "SECURITY.md",
        "examples/README.md",
    ];
    for page in pages.map(|page| root.join(page)) {
        let text = std::fs::read_to_string(&page).unwrap();
        let inline = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target);
        let references =
            text.split("\n[").skip(1).filter_map(|rest| rest.lines().next()?.split_once("]: "));
        for target in inline.chain(references.map(|(_, target)| target)) {
            let file = target.split('#').next().unwrap();
            // The README is read on crates.io, too: its links are absolute, to the source at
            // docs.rs.
            let there = match file.strip_prefix(PACKAGE) {
                Some(file) => root.join(file).exists(),
                None => {
                    file.is_empty() || file.contains("://") || page.with_file_name(file).exists()
                }
            };
            assert!(there, "{} links to {target}", page.display());
        }
    }
}

#[test]
fn the_units_the_containers_and_their_page_agree_on_how_a_node_stops() {
    let read = |file: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let page = read("README.md");
    let units = ["relay", "edge"].map(|role| read(&format!("systemd/receptor-{role}.service")));
    // A restart of an edge must not end its jobs.
    for (unit, kill_mode) in units.iter().zip(["KillMode=mixed", "KillMode=process"]) {
        for line in [kill_mode, "TimeoutStopSec=30", "RestartPreventExitStatus=2 4 5"] {
            assert!(unit.lines().any(|found| found == line), "{line}");
            assert!(page.contains(&format!("`{line}`")), "the page does not explain {line}");
        }
        assert!(unit.contains("ExecReload=kill -HUP $MAINPID"));
    }
    let compose = read("container/compose.yaml");
    assert!(compose.contains("stop_grace_period: 30s"));
    // What the node takes beyond its grace period for a shutdown is at most 10 s.
    for file in ["systemd/relay.toml", "systemd/edge.toml"] {
        assert!(read(file).lines().any(|line| line == "grace = \"15s\""), "{file}");
    }
    assert!(read("container/Containerfile").contains("RECEPTOR_GRACE=15s"));
    assert!(
        page.contains("end for 15 s") && units.iter().all(|unit| unit.contains("15 s for calls"))
    );
}

#[test]
fn the_page_about_commands_has_every_key_of_the_table() {
    let page = include_str!("../../docs/commands.md");
    for key in ["run", "max-output", "grace", "env", "inherit-env", "dir", "user", "stderr"] {
        assert!(page.contains(&format!("\n| `{key}` |")), "{key}");
    }
}

#[test]
fn the_page_about_work_has_every_key_of_the_table() {
    let page = include_str!("../../docs/work.md");
    let table = include_str!("../../src/cli/setup/file/units.rs");
    let (_, raw) = table.split_once("struct RawUnits {\n").expect("the table");
    let (fields, _) = raw.split_once("\n}").expect("its end");
    for field in fields.lines() {
        let key = field.split(':').next().unwrap().trim().replace('_', "-");
        assert!(page.contains(&format!("\n| `{key}` |")), "{key}");
    }
}

/// The text of every Rust file of the library and its tests.
fn sources() -> Vec<String> {
    fn add(folder: &std::path::Path, into: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("the package has its sources") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                add(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(std::fs::read_to_string(&path).expect("sources are text"));
            }
        }
    }
    let mut sources = Vec::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    ["src", "tests"].iter().for_each(|folder| add(&root.join(folder), &mut sources));
    sources
}

/// The names in backquotes that are long enough for those of tests.
fn named_tests(page: &str) -> Vec<&str> {
    let word = |text: &&str| {
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter(word)
        .filter(|name| name.matches('_').count() >= 3)
        .collect()
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let named = named_tests(SECURITY);
    assert!(named.len() > 50, "{}", named.len());
    let sources = sources();
    let missing: Vec<_> = named
        .iter()
        .filter(|name| !sources.iter().any(|source| source.contains(&format!("fn {name}("))))
        .collect();
    assert!(missing.is_empty(), "docs/security.md names tests that do not exist: {missing:?}");
}

#[test]
fn the_security_page_lists_the_attacks_that_are_not_withstood_yet() {
    let (_, rest) = SECURITY.split_once("<!-- ignored: begin -->").expect("the list begins");
    let (list, _) = rest.split_once("<!-- ignored: end -->").expect("the list ends");
    let mut listed = named_tests(list);
    listed.sort_unstable();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let mut ignored = Vec::new();
    for entry in std::fs::read_dir(root).expect("the package has its tests") {
        let source =
            std::fs::read_to_string(entry.expect("a folder can be listed").path()).expect("text");
        for (_, after) in source.match_indices("#[ignore").map(|(at, _)| source.split_at(at)) {
            let (_, name) = after.split_once("async fn ").expect("a test follows");
            ignored.extend(name.split('(').next().map(str::to_owned));
        }
    }
    ignored.sort_unstable();
    assert_eq!(ignored, listed, "docs/security.md lists the attacks that succeed");
}

#[test]
fn every_file_that_the_architecture_page_names_is_there() {
    let page = include_str!("../../docs/architecture.md");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let words = page.split(|c: char| c == '`' || c.is_whitespace());
    let files: Vec<_> =
        words.filter(|word| word.starts_with("src/") && word.ends_with(".rs")).collect();
    assert!(files.len() > 40, "{files:?}");
    for file in files {
        assert!(root.join(file).is_file(), "docs/architecture.md names {file}");
    }
}

#[test]
fn every_method_of_a_node_has_an_example() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut methods = 0;
    let mut without = Vec::new();
    for file in ["node.rs", "node/builder.rs", "node/calls.rs", "node/shutdown.rs"] {
        let text = std::fs::read_to_string(root.join(file)).expect("the package has its sources");
        for block in text.split("\nimpl Node {\n").skip(1) {
            let (block, _) = block.split_once("\n}\n").expect("the block ends");
            let mut example = false;
            for line in block.lines() {
                let signature =
                    line.strip_prefix("    pub ").map(|line| line.trim_start_matches("async "));
                example |= line.contains("```");
                if let Some(method) = signature.and_then(|line| line.strip_prefix("fn ")) {
                    methods += 1;
                    let name = method.split(['(', '<']).next().expect("a name");
                    if !std::mem::take(&mut example) && name != "report_closed_port" {
                        without.push(format!("{file}: {name}"));
                    }
                }
            }
        }
    }
    assert!(methods > 30, "{methods}");
    assert!(without.is_empty(), "public methods of Node without an example: {without:?}");
}

#[test]
#[cfg(feature = "policy")]
fn every_recipe_of_the_policy_page_is_a_policy_whose_tests_hold() {
    let page = include_str!("../../docs/policy.md");
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/policy");
    let mut recipes = 0;
    for entry in std::fs::read_dir(&dir).expect("the package has its recipes") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(page.contains(&format!("(../deploy/policy/{name})")), "{name} is not on the page");
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let policy = receptor_quic::policy::Policy::from_toml(&text);
        let policy = policy.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(policy.test_count() > 1, "{name}");
        recipes += 1;
    }
    assert_eq!(recipes, 10);
    let (_, example) = page.split_once("```toml\n").expect("there is an example");
    let (example, _) = example.split_once("```").expect("it ends");
    receptor_quic::policy::Policy::from_toml(example).expect("the example is a policy");
}
