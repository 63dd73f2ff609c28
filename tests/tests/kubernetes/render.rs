//! Kustomize and Helm: valid for each version of Kubernetes, the same as each other, and with policies that
//! `limiterd check` has nothing to say about.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::daemon::limiterd;
use tests::kubernetes::{Objects, chart, deploy, helm, kustomize, template, validate};

use crate::support::{PROFILES, drain, overlay, released, with_component};

/// From the oldest that `docs/kubernetes.md` names to the newest with a schema.
const VERSIONS: [&str; 11] = [
    "1.27", "1.28", "1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37",
];

/// Labels that say who made an object, and to which release it belongs.
const OF_RELEASE: [&str; 4] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
];

/// What is no kind of Kubernetes' own has no schema there.
fn own(objects: &Objects) -> Objects {
    let own = |object: &&Value| object["kind"] != "PodMonitor";
    Objects(objects.0.iter().filter(own).cloned().collect())
}

#[test]
fn every_version_takes_what_is_rendered() -> Result<()> {
    let mut rendered = vec![kustomize(&deploy().join("base"))?];
    for profile in PROFILES {
        rendered.push(overlay(profile)?);
        rendered.push(released(profile, &[])?);
        rendered.push(released(
            profile,
            &[
                "--set",
                "podMonitor.enabled=true,image.tag=1.2.3,image.pullPolicy=Always",
                "--set",
                "imagePullSecrets[0].name=registry,podLabels.team=edge,replicas=5",
                "--set",
                "resources.limits.memory=2Gi,terminationGracePeriodSeconds=90",
                "--set-string",
                "podAnnotations.note=one",
            ],
        )?);
    }
    rendered.push(with_component("edge", "surge")?);
    for objects in rendered {
        let said = validate(&own(&objects), &VERSIONS)?;
        // Each object was held to each version.
        let passed = said.matches(" passed for resource ").count();
        assert_eq!(passed, own(&objects).0.len() * VERSIONS.len(), "{said}");
    }
    Ok(())
}

#[test]
fn a_field_that_no_version_has_is_refused() -> Result<()> {
    let mut objects = overlay("edge")?;
    let set = |object: &&mut Value| object["kind"] == "DaemonSet";
    let set = objects.0.iter_mut().find(set).context("no DaemonSet")?;
    set["spec"]["template"]["spec"]["hostNetwrok"] = json!(true);
    let error = validate(&objects, &["1.27"]).expect_err("it is misspelt");
    assert!(error.to_string().contains("hostNetwrok"), "{error}");
    Ok(())
}

/// An object without what differs by who rendered it.
fn plain(object: &Value) -> Value {
    let mut object = object.clone();
    strip(&mut object);
    let metadata = &mut object["metadata"];
    if let Some(labels) = metadata["labels"].as_object_mut() {
        labels.remove("app.kubernetes.io/name");
        if labels.is_empty() {
            metadata["labels"].take();
        }
    }
    // Kustomize tells versions of the settings by a name, Helm by an annotation.
    unhash(&mut object["metadata"]["name"]);
    let template = &mut object["spec"]["template"];
    if let Some(annotations) = template["metadata"]["annotations"].as_object_mut() {
        annotations.remove("limiterd.io/config");
    }
    for volume in template["spec"]["volumes"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        let sources = volume["projected"]["sources"].as_array_mut();
        for source in sources.into_iter().flatten() {
            unhash(&mut source["configMap"]["name"]);
        }
    }
    without_nulls(&mut object);
    object
}

fn unhash(name: &mut Value) {
    let text = name.as_str().unwrap_or_default();
    if text.starts_with("limiterd-config") {
        *name = json!("limiterd-config");
    }
}

/// Takes the labels of a release away wherever they are.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !OF_RELEASE.contains(&key.as_str()));
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Looking into an object leaves nulls in it.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(without_nulls);
            map.retain(|_, value| !value.is_null() && *value != json!({}));
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn by_kind(objects: &Objects) -> Vec<Value> {
    let mut all: Vec<_> = objects.0.iter().map(plain).collect();
    all.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
    all
}

#[test]
fn helm_makes_what_kustomize_makes() -> Result<()> {
    for profile in PROFILES {
        same(&overlay(profile)?, &released(profile, &[])?);
    }
    let surge = released("edge", &["--set", "surge=true"])?;
    same(&with_component("edge", "surge")?, &surge);
    Ok(())
}

fn same(one: &Objects, other: &Objects) {
    let (one, other) = (by_kind(one), by_kind(other));
    let kinds =
        |all: &[Value]| -> Vec<Value> { all.iter().map(|object| object["kind"].clone()).collect() };
    assert_eq!(kinds(&one), kinds(&other));
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other);
    }
}

#[test]
fn a_packaged_chart_brings_its_policies_along() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let to = dir.path().to_str().context("not UTF-8")?;
    let at = chart();
    helm([
        "package",
        "--destination",
        to,
        at.to_str().context("not UTF-8")?,
    ])?;
    let package = dir.path().join("limiterd-0.1.0.tgz");
    for profile in PROFILES {
        let set = format!("profile={profile},namespace.create=true");
        let packaged = template(&package, &["--set", &set])?;
        assert_eq!(by_kind(&packaged), by_kind(&released(profile, &[])?));
    }
    helm(["lint", "--strict", at.to_str().context("not UTF-8")?])?;
    Ok(())
}

#[test]
fn a_value_that_means_nothing_is_refused() {
    for (set, named) in [
        ("replica=3", "replica"),
        ("profile=sidecar", "profile"),
        ("podMonitor.enable=true", "enable"),
        ("policies.limiterd\\.yaml=x", "limiterd.yaml"),
        (
            "surge=true,podMonitor.enabled=true",
            "switch one of them off",
        ),
    ] {
        let error = released("edge", &["--set", set]).expect_err(set);
        assert!(error.to_string().contains(named), "{set}: {error}");
    }
}

#[test]
fn files_of_ones_own_take_the_place_of_the_examples() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("mine.yaml");
    fs::write(&file, "# mine\n")?;
    let mine = format!("policies.mine\\.yaml={}", file.display());
    let config = format!("config={}", file.display());
    let objects = released("edge", &["--set-file", &mine, "--set-file", &config])?;
    let files = objects.files("policy")?;
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    // The pods' own needs stay.
    assert_eq!(
        names,
        [
            "limiterd.yaml",
            "mine.yaml",
            "status-access.yaml",
            "status.yaml"
        ]
    );
    assert_eq!(files["limiterd.yaml"], "# mine\n");
    let rolled = |objects: &Objects| -> Result<Value> {
        let template = &objects.workload()?["spec"]["template"];
        Ok(template["metadata"]["annotations"]["limiterd.io/config"].clone())
    };
    // Settings roll the pods; policies do not.
    assert_ne!(rolled(&objects)?, rolled(&released("edge", &[])?)?);
    let only_policies = released("edge", &["--set-file", &mine])?;
    assert_eq!(rolled(&only_policies)?, rolled(&released("edge", &[])?)?);
    Ok(())
}

#[test]
fn check_has_nothing_to_say_about_the_policies() -> Result<()> {
    for profile in PROFILES {
        let dir = tempfile::tempdir()?;
        for (name, text) in overlay(profile)?.files("policy")? {
            fs::write(dir.path().join(name), text)?;
        }
        let path = dir.path().to_str().context("not UTF-8")?;
        let output = limiterd(&["check", "--deny-warnings", path])?;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{profile}: {said}");
    }
    Ok(())
}

#[test]
fn nothing_of_the_cluster_is_asked_for() -> Result<()> {
    for objects in [overlay("edge")?, overlay("rls-only")?] {
        for object in &objects.0 {
            let kind = object["kind"].as_str().unwrap_or_default();
            assert!(!kind.contains("Role"), "{object}");
        }
        let account = objects.one("ServiceAccount")?;
        assert_eq!(account["automountServiceAccountToken"], false);
        let pod = objects.pod()?;
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    }
    Ok(())
}

#[test]
fn the_grace_period_is_longer_than_a_drain() -> Result<()> {
    for profile in PROFILES {
        let objects = overlay(profile)?;
        let drain = drain(&objects, "drainDelay")? + drain(&objects, "drainTimeout")?;
        let grace = objects.pod()?["terminationGracePeriodSeconds"].as_u64();
        // The last lines of the log and the last answers take up to three seconds more.
        assert!(grace >= Some(drain + 5), "{profile}: {grace:?} for {drain}");
    }
    Ok(())
}

#[test]
fn the_pod_monitor_scrapes_a_port_of_the_pods() -> Result<()> {
    for profile in PROFILES {
        let released = released(profile, &["--set", "podMonitor.enabled=true"])?;
        for objects in [with_component(profile, "pod-monitor")?, released] {
            let monitor = objects.one("PodMonitor")?;
            assert_eq!(monitor["metadata"]["namespace"], "limiterd");
            let selector = &monitor["spec"]["selector"]["matchLabels"];
            let pods = &objects.workload()?["spec"]["template"]["metadata"]["labels"];
            for (label, value) in selector.as_object().context("no labels")? {
                assert_eq!(pods[label], *value);
            }
            let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
            let ports = objects.container()?["ports"]
                .as_array()
                .context("no ports")?;
            assert!(ports.iter().any(|port| port["name"] == endpoint["port"]));
            assert_eq!(endpoint["path"], "/metrics");
        }
    }
    Ok(())
}
