//! The pages agree with what they describe.

const HELLO: &str = include_str!("../../examples/hello.rs");
const README: &str = include_str!("../../README.md");

/// The example below its heading lines.
fn hello() -> &'static str {
    let (_, body) = HELLO.split_once("\n\n").expect("an empty line ends the heading");
    body.trim_end()
}

#[test]
fn the_readme_shows_the_hello_example_as_it_is() {
    assert!(README.contains(&format!("```rust\n{}\n```", hello())), "paste examples/hello.rs into README.md");
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
    let pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/protocol.md", "examples/README.md"];
    for page in pages.map(|page| root.join(page)) {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
        {
            let file = target.split('#').next().unwrap();
            let there = file.is_empty() || file.contains("://") || page.with_file_name(file).exists();
            assert!(there, "{} links to {target}", page.display());
        }
    }
}
