//! `limiterd probe` here, and without privilege.

use std::process::Command;

use anyhow::Result;
use tests::daemon::{binary, limiterd};

#[test]
fn this_machine_can_do_all_that_is_needed() -> Result<()> {
    let output = limiterd(&["probe", "--json"])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{text}");
    for what in ["kernel", "privilege", "limiterd's programs", "interface lo"] {
        assert!(text.contains(&format!("\"what\": \"{what}\"")), "{text}");
    }
    assert!(!text.contains("\"state\": \"missing\""), "{text}");
    Ok(())
}

#[test]
fn without_privilege_it_says_which_is_missing() -> Result<()> {
    // A copy that anybody may run: the build's directory may be closed to others.
    let directory = tempfile::tempdir_in("/tmp")?;
    let copy = directory.path().join("limiterd");
    std::fs::copy(binary(), &copy)?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open)?;
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
        ])
        .args([copy.as_os_str(), "probe".as_ref()])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("MISSING   privilege"), "{text}");
    assert!(
        text.contains("no CAP_NET_ADMIN") && text.contains("no CAP_BPF"),
        "{text}"
    );
    Ok(())
}
