//! `limiterd top` against a running daemon: printed once, as JSON, and on a terminal.

use std::fs::File;
use std::io::{Error, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tests::daemon::{ADMIN, binary, demo_backend, eventually};
use tests::http_client::get;
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
    // Whom nothing but limits on requests denies.
    let source = &json["sources"][0];
    assert_eq!(source["source"], "127.0.0.1");
    assert_eq!(source["policy"], "default/api/rule/0");
    assert_eq!(source["state"], "denied requests on default/api");
    assert!(source["denied_per_second"].as_f64() > Some(0.0), "{source}");
    let offenders = scene
        .netns
        .enter(|| get(&format!("http://{ADMIN}/offenders")))?;
    let offenders: serde_json::Value = serde_json::from_slice(&offenders.body)?;
    assert_eq!(offenders["limited"][0]["limited"], 3, "{offenders}");
    assert_eq!(offenders["missing"], 0);

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

/// `limiterd top` on a pseudo-terminal, and what is on its screen.
struct OnTerminal {
    child: Child,
    ours: File,
    terminal: vt100::Parser,
}

const SIZE: (u16, u16) = (40, 150);

const fn size((ws_row, ws_col): (u16, u16)) -> libc::winsize {
    libc::winsize {
        ws_row,
        ws_col,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl OnTerminal {
    fn start(netns: &Netns) -> Result<Self> {
        let (mut ours, mut theirs) = (0, 0);
        let size = size(SIZE);
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
        ensure!(made == 0, "no pseudo-terminal: {}", Error::last_os_error());
        // SAFETY: openpty made both, and nobody else has them.
        let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        // SAFETY: the descriptor is open; the flag is of it alone.
        let set = unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        ensure!(set == 0, "{}", Error::last_os_error());
        let mut command = Command::new(binary());
        command.args(["top", "--interval", "100ms"]);
        command.env("NO_COLOR", "1").env("TERM", "xterm");
        command.stdin(Stdio::from(theirs.try_clone()?));
        command.stdout(Stdio::from(theirs.try_clone()?));
        command.stderr(Stdio::from(theirs));
        // The pseudo-terminal is to be its controlling one, which is asked for its size.
        // SAFETY: both calls are async-signal-safe, and touch no memory.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(Error::last_os_error());
                }
                Ok(())
            });
        }
        Ok(Self {
            child: netns.enter(move || Ok(command.spawn()?))?,
            ours: File::from(ours),
            terminal: vt100::Parser::new(SIZE.0, SIZE.1, 0),
        })
    }

    /// Waits until the screen is as it should be.
    fn shows(&mut self, what: &str, wanted: impl Fn(&vt100::Screen) -> bool) -> Result<()> {
        let shown = eventually(what, || {
            let mut piece = [0; 4096];
            // Nothing to read yet, or the other end is closed.
            if let Ok(length) = self.ours.read(&mut piece) {
                self.terminal.process(&piece[..length]);
            }
            Ok(wanted(self.terminal.screen()).then_some(()))
        });
        shown.with_context(|| self.terminal.screen().contents())
    }

    fn resize(&mut self, to: (u16, u16)) -> Result<()> {
        let size = size(to);
        self.terminal.screen_mut().set_size(to.0, to.1);
        // SAFETY: the descriptor is open, and the size lives as long as the call.
        let set = unsafe { libc::ioctl(self.ours.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        ensure!(set == 0, "{}", Error::last_os_error());
        Ok(())
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.ours.write_all(keys.as_bytes())?)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It has ended, mostly.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Whether a letter of the screen has a colour.
fn coloured(screen: &vt100::Screen) -> bool {
    let (rows, columns) = screen.size();
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let mut cells = cells.filter_map(|(row, column)| screen.cell(row, column));
    cells.any(|cell| cell.fgcolor() != vt100::Color::Default)
}

#[test]
fn a_terminal_is_drawn_on_without_colour_and_given_back() -> Result<()> {
    const RULE: &str = "default/api/rule/0";
    let (scene, _backend) = scene()?;
    assert_eq!(scene.statuses("api", &[], 3)?, [200, 200, 429]);
    let mut top = OnTerminal::start(&scene.netns)?;
    let has = |text: &'static str| move |screen: &vt100::Screen| screen.contents().contains(text);
    top.shows("the rule", |screen| {
        screen.alternate_screen() && screen.contents().contains(RULE)
    })?;
    assert!(!coloured(top.terminal.screen()));
    top.press("/nothing has this\r")?;
    top.shows("nothing but the filter", |screen| {
        let text = screen.contents();
        text.contains("filter: nothing has this  0-8") && !text.contains(RULE)
    })?;
    top.press("\u{1b}")?;
    top.shows("the rule again", has(RULE))?;
    top.press("4")?;
    top.shows("routes alone", |screen| {
        let text = screen.contents();
        text.contains("ROUTES") && !text.contains(RULE)
    })?;
    top.resize((12, 70))?;
    top.shows("the last line in its place", |screen| {
        let last = screen.contents_between(11, 0, 11, 70);
        last.starts_with("0-8 Tab sections")
    })?;
    top.press("q")?;
    top.shows("the screen given back", |screen| !screen.alternate_screen())?;
    let status = eventually("the end of top", || Ok(top.child.try_wait()?))?;
    assert!(status.success());
    Ok(())
}
