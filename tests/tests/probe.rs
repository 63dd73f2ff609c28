//! `limiterd probe` here, and without privilege.

use anyhow::Result;
use tests::daemon::limiterd;
use tests::user::User;

#[test]
fn this_machine_can_do_all_that_is_needed() -> Result<()> {
    let output = limiterd(&["probe", "--json"])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{text}");
    for what in [
        "kernel",
        "capability CAP_BPF",
        "limiterd's programs",
        "interface lo",
    ] {
        assert!(text.contains(&format!("\"what\": \"{what}\"")), "{text}");
    }
    assert!(!text.contains("\"state\": \"missing\""), "{text}");
    Ok(())
}

#[test]
fn without_privilege_it_says_which_is_missing() -> Result<()> {
    let output = User::new(&[])?.limiterd().arg("probe").output()?;
    let text = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(1), "{text}");
    for (mark, name) in [
        ("MISSING ", "CAP_BPF"),
        ("MISSING ", "CAP_NET_ADMIN"),
        ("MISSING ", "CAP_PERFMON"),
        ("degraded", "CAP_NET_BIND_SERVICE"),
    ] {
        let told = |line: &&str| line.starts_with(&format!("{mark}  capability {name}"));
        let line = text.lines().find(told);
        assert!(
            line.is_some_and(|line| line.contains(&format!("no {name}, to "))),
            "{text}"
        );
    }
    assert!(
        text.contains("setcap cap_bpf,cap_net_admin,cap_perfmon"),
        "{text}"
    );
    Ok(())
}
