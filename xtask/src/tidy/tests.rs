//! The rules, on small texts.

use std::path::Path;

use super::{Offence, check, layers, links, text};

fn lines(offences: &[Offence]) -> Vec<usize> {
    offences.iter().map(|offence| offence.line).collect()
}

#[test]
fn a_long_file_is_told_and_tests_may_be_longer() {
    let long = "\n".repeat(501);
    assert!(text::length("limiter-daemon/src/app.rs", &long).is_some());
    assert!(text::length("limiter-daemon/src/app.rs", &"\n".repeat(500)).is_none());
    assert!(text::length("limiter-common/src/bucket/tests.rs", &long).is_none());
    assert!(text::length("tests/src/netns.rs", &long).is_none());
    assert!(text::length("tests/src/netns.rs", &"\n".repeat(801)).is_some());
}

#[test]
fn a_module_begins_with_its_doc() {
    assert!(text::module_doc("xtask/src/a.rs", "//! What it is.\n").is_none());
    assert!(text::module_doc("xtask/src/a.rs", "\nuse std::fmt;\n").is_some());
    assert!(text::module_doc("limiter-daemon/build.rs", "fn main() {}\n").is_none());
}

#[test]
fn unfinished_code_is_told_but_not_in_comments() {
    let code = concat!(
        "fn a() { todo",
        "!() }\n",
        "// todo",
        "!()\n#[",
        "ignore]\n"
    );
    assert_eq!(lines(&text::unfinished(code)), [1, 3]);
}

#[test]
fn unsafe_code_has_its_places() {
    let code = concat!("let a = unsafe", " { b() };");
    assert_eq!(
        lines(&text::unsafe_places("limiter-daemon/src/l7/a.rs", code)),
        [1]
    );
    assert!(text::unsafe_places("limiter-daemon/src/l4/maps.rs", code).is_empty());
    assert!(text::unsafe_places("limiter-ebpf/src/parse.rs", code).is_empty());
    assert!(text::unsafe_places("xtask/src/a.rs", "unsafe_places(path)").is_empty());
}

#[test]
fn paths_of_a_machine_are_told() {
    let paths = concat!(
        "see `/",
        "home/me/x`\n",
        "docs/",
        "work/plan.md\n",
        "\"/",
        "root/.bashrc\""
    );
    assert_eq!(lines(&text::machine_paths(paths)), [1, 3]);
}

#[test]
fn a_crate_inherits_the_lints() {
    assert!(
        text::workspace_lints("[package]\nname = \"a\"\n[lints]\nworkspace = true\n").is_none()
    );
    assert!(text::workspace_lints("[workspace]\nmembers = []\n").is_none());
    assert!(text::workspace_lints("[package]\nname = \"a\"\n").is_some());
    assert!(text::workspace_lints("[package]\n[lints]\n[features]\nworkspace = true\n").is_some());
}

#[test]
fn imports_point_one_way() {
    let in_engine = |line: &str| layers::check("limiter-daemon/src/engine/decide.rs", line).len();
    assert_eq!(in_engine("use crate::policy::plan::Plan;"), 0);
    assert_eq!(in_engine("use crate::l7::pipeline;"), 1);
    assert_eq!(in_engine("use crate::{policy::{Plan, l7}, engine};"), 0);
    assert_eq!(
        in_engine("use crate::{policy::Plan, l7::{Body, Request}, cli};"),
        2
    );
    assert_eq!(in_engine("use super::super::l4::maps;"), 1);
    assert_eq!(in_engine("use std::time::{Duration, Instant};"), 1);
    assert_eq!(in_engine("// as tokio does"), 0);
    assert_eq!(in_engine("let header = tokio_header();"), 0);
}

#[test]
fn a_simulation_knows_what_decides_and_nobody_below_knows_it() {
    let in_simulate = |line: &str| layers::check("limiter-daemon/src/simulate/mod.rs", line).len();
    assert_eq!(
        in_simulate("use crate::{l4::trial, l7::preview, engine::Engine};"),
        0
    );
    assert_eq!(in_simulate("use crate::cli::paint::Paint;"), 1);
    assert_eq!(in_simulate("use std::time::Instant;"), 1);
    let below = layers::check(
        "limiter-daemon/src/l4/trial.rs",
        "use crate::simulate::Report;",
    );
    assert_eq!(below.len(), 1);
}

#[test]
fn the_two_layers_do_not_know_each_other() {
    assert_eq!(
        layers::check("limiter-daemon/src/l7/pipeline.rs", "use crate::l4::Maps;").len(),
        1
    );
    assert_eq!(
        layers::check("limiter-daemon/src/l4/mod.rs", "use crate::l7::Body;").len(),
        1
    );
    assert_eq!(
        layers::check("limiter-daemon/src/l7.rs", "use tokio::net::TcpListener;").len(),
        0
    );
    assert_eq!(
        layers::check("limiter-daemon/src/app.rs", "use crate::{l4, l7};").len(),
        0
    );
}

#[test]
fn local_links_are_found() {
    let line = "see [a](docs/a.md#top), [b](https://b.example/c), [c](#here), [d](d.md \"Title\")";
    assert_eq!(links::local_targets(line), ["docs/a.md", "d.md"]);
}

#[test]
fn a_link_to_nothing_is_told_but_not_in_a_code_block() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = "[x](src/main.rs)\n[y](src/none.rs)\n```\n[z](src/none.rs)\n```\n";
    assert_eq!(lines(&check(root, "a.md", page)), [2]);
    assert_eq!(
        lines(&check(
            root,
            "src/a.md",
            "[x](../Cargo.toml)\n[y](Cargo.toml)\n"
        )),
        [2]
    );
}
