//! `limiterd top` against a running daemon: printed once, as JSON, and on a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tests::daemon::{binary, demo_backend, eventually};
use tests::netns::Netns;
use tests::policies::{GATEWAY, limited_host};
use tests::scene::Scene;

const TWO: &str = "local: {rules: [{limit: {requests: 2, unit: Hour}}]}";

fn scene() -> Result<(Scene, tests::daemon::Process)> {
    let netns = Netns::new("top")?;
    let backend = demo_backend(&netns)?;
    let limits = limited_host("api", TWO);
    let files = [("gateway.yaml", GATEWAY), ("api.yaml", limits.as_str())];
    Ok((Scene::start(netns, &files)?, backend))
}

fn top(netns: &Netns, args: &[&str]) -> Result<(bool, String)> {
    let output = netns.enter(|| {
        let mut command = Command::new(binary());
        Ok(command.arg("top").args(args).output()?)
    })?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    Ok((output.status.success(), text))
}

#[test]
fn one_screen_and_json_tell_what_is_limited() -> Result<()> {
    let (scene, _backend) = scene()?;
    assert_eq!(scene.statuses("api", &[], 5)?, [200, 200, 429, 429, 429]);
    let (ok, text) = top(&scene.netns, &["--once", "--interval", "100ms"])?;
    assert!(ok, "{text}");
    assert!(text.contains("ready; policy"), "{text}");
    for title in ["LIMITS", "ROUTES", "UPSTREAMS"] {
        assert!(text.lines().any(|line| line == title), "{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    let limit = text
        .lines()
        .find(|line| line.starts_with("default/api/rule/0"));
    // The last column: limited since the start.
    assert!(limit.is_some_and(|line| line.ends_with(" 3")), "{text}");

    let args = ["--json", "--interval", "100ms"];
    let (ok, text) = top(&scene.netns, &args)?;
    ensure!(ok, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(json["limits"][0]["limited"], 3);
    assert_eq!(json["node"]["ready"], true);
    assert_eq!(json["nodes"], serde_json::json!([]));

    let wrong = ["--once", "--section", "limits", "--sort", "nothing"];
    let (ok, text) = top(&scene.netns, &wrong)?;
    assert!(!ok && text.contains("it has rule, route, limit"), "{text}");
    let (ok, text) = top(&scene.netns, &["--once", "--admin", "127.0.0.1:9"])?;
    assert!(!ok && text.contains("cannot reach limiterd"), "{text}");
    // Neither a terminal nor --once.
    let (ok, text) = top(&scene.netns, &[])?;
    assert!(!ok && text.contains("--once"), "{text}");
    Ok(())
}

/// `limiterd top` on a pseudo-terminal.
struct OnTerminal {
    child: Child,
    keys: File,
    seen: String,
}

impl OnTerminal {
    fn start(netns: &Netns) -> Result<Self> {
        let (mut ours, mut theirs) = (0, 0);
        let size = libc::winsize {
            ws_row: 40,
            ws_col: 150,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the pointers are to integers and to a size that live here; a null name and null
        // settings are allowed.
        let made = unsafe {
            libc::openpty(
                &raw mut ours,
                &raw mut theirs,
                std::ptr::null_mut(),
                std::ptr::null(),
                &raw const size,
            )
        };
        ensure!(
            made == 0,
            "no pseudo-terminal: {}",
            std::io::Error::last_os_error()
        );
        // SAFETY: openpty made both, and nobody else has them.
        let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        // SAFETY: the descriptor is open; the flag is of it alone.
        let set = unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        ensure!(set == 0, "{}", std::io::Error::last_os_error());
        let mut command = Command::new(binary());
        command.args(["top", "--interval", "100ms"]);
        command.env("NO_COLOR", "1").env("TERM", "xterm");
        command.stdin(Stdio::from(theirs.try_clone()?));
        command.stdout(Stdio::from(theirs.try_clone()?));
        command.stderr(Stdio::from(theirs));
        let child = netns.enter(move || Ok(command.spawn()?))?;
        Ok(Self {
            child,
            keys: File::from(ours),
            seen: String::new(),
        })
    }

    /// Waits until `text` has been written. Only what changes is drawn, so it is to be in one piece.
    fn shows(&mut self, text: &str) -> Result<()> {
        let shown = eventually(text, || {
            let mut piece = [0; 4096];
            // Nothing to read yet, or the other end is closed.
            if let Ok(length) = self.keys.read(&mut piece) {
                self.seen += &String::from_utf8_lossy(&piece[..length]);
            }
            Ok(self.seen.contains(text).then_some(()))
        });
        shown.with_context(|| self.seen.clone())
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        self.seen.clear();
        Ok(self.keys.write_all(keys.as_bytes())?)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It has ended, mostly.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_terminal_is_drawn_on_without_colour_and_given_back() -> Result<()> {
    let (scene, _backend) = scene()?;
    assert_eq!(scene.statuses("api", &[], 3)?, [200, 200, 429]);
    let mut terminal = OnTerminal::start(&scene.netns)?;
    terminal.shows("default/api/rule/0")?;
    // SGR 30 to 37 are the colours of letters; bold and dim are none.
    assert!(!terminal.seen.contains("\u{1b}[3"), "{}", terminal.seen);
    terminal.press("/nothing has this\r")?;
    terminal.shows("filter: nothing has this")?;
    terminal.press("\u{1b}")?;
    terminal.shows("default/api/rule/0")?;
    terminal.press("4")?;
    terminal.shows("SHARE FAILED")?;
    terminal.press("q")?;
    // The alternate screen is left.
    terminal.shows("\u{1b}[?1049l")?;
    let status = eventually("the end of top", || Ok(terminal.child.try_wait()?))?;
    assert!(status.success());
    Ok(())
}
