//! The runbook and the alerts, held together: each alert leads to a section of `docs/runbook.md` of its
//! own name, and no section is about an alert that there is not.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

const PAGE: &str = "https://github.com/limiterd/limiterd/blob/main/docs/runbook.md#";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Sections of the runbook by their headings.
fn sections() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(workspace().join("docs/runbook.md")).unwrap();
    let parts = text.split("\n## ").skip(1);
    let parts = parts.filter_map(|part| part.split_once('\n'));
    parts
        .map(|(heading, body)| (heading.to_owned(), body.to_owned()))
        .collect()
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let rules = workspace().join("deploy/prometheus/limiterd.rules.yaml");
    let rules: Value = serde_saphyr::from_str(&std::fs::read_to_string(rules).unwrap()).unwrap();
    let mut sections = sections();
    let groups = rules["groups"].as_array().unwrap();
    let alerts = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let mut seen = 0;
    for alert in alerts {
        seen += 1;
        let name = alert["alert"].as_str().unwrap();
        let url = alert["annotations"]["runbook_url"].as_str();
        let expected = format!("{PAGE}{}", name.to_lowercase());
        assert_eq!(url, Some(expected.as_str()), "{name}");
        let section = sections.remove(name);
        let section = section.unwrap_or_else(|| panic!("no section {name}"));
        let severity = alert["labels"]["severity"].as_str().unwrap();
        // It says what it is, how bad, what to look at and what to do.
        for word in [severity, "**Look**", "**Do**"] {
            assert!(
                section.to_lowercase().contains(&word.to_lowercase()),
                "{name}: the section has no {word}"
            );
        }
    }
    assert!(seen > 10, "{seen}");
    assert!(sections.is_empty(), "no alert: {:?}", sections.keys());
}
