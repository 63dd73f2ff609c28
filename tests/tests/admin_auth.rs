//! Who may ask the admin listener, and for what: by place, token, certificate and Unix socket; what is
//! written down of it; and what one may have it do.

use std::fs::Permissions;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use http::Request;
use http_body_util::Full;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::activation::activated;
use tests::browser::Browser;
use tests::daemon::{ADMIN, Daemon, Policies, Process, binary, demo_backend, eventually};
use tests::http_client::{Answer, Speak, get, many};
use tests::metrics;
use tests::netns::Netns;
use tests::policies::{GATEWAY, route};
use tests::tls::Authority;

/// An address of the node that is no loopback address, as others see it.
const OUTSIDE: &str = "192.0.2.1";
/// Changes something wherever limiterd runs.
const CHANGE: &str = "/runtime_modify?ratelimit.http_filter_enabled=20";
const READER: &str = "reader-0123456789abcdef";
const WRITER: &str = "writer-0123456789abcdef";

/// A LimiterConfig with this under `admin`, and in its `spec`.
fn config(admin: &str, more: &str) -> String {
    format!(
        "\
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec:
  http: {{workers: 1}}
{more}  admin: {{{admin}}}
"
    )
}

fn policies(admin: &str) -> Result<Policies> {
    Policies::new(&[
        ("limiterd.yaml", &config(admin, "")),
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/")),
    ])
}

/// Files with tokens.
struct Tokens(TempDir);

impl Tokens {
    fn new() -> Result<Self> {
        let tokens = Self(tempfile::tempdir()?);
        tokens.write("reader", READER)?;
        tokens.write("writer", WRITER)?;
        Ok(tokens)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        std::fs::write(self.path(name), text)?;
        Ok(std::fs::set_permissions(
            self.path(name),
            Permissions::from_mode(0o640),
        )?)
    }

    /// As `admin` names them.
    fn settings(&self) -> String {
        format!(
            "tokens: [{{name: prometheus, path: {}, access: Read}}, {{name: oncall, path: {}, access: Write}}]",
            self.path("reader").display(),
            self.path("writer").display()
        )
    }
}

fn ask(netns: &Netns, method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::default())?;
    netns.enter(|| {
        many(Speak::Http1, vec![request])?
            .pop()
            .context("no answer")
    })
}

/// Status and text of an answer of the admin address.
fn admin(
    netns: &Netns,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(u16, String)> {
    let answer = ask(netns, method, &format!("http://{ADMIN}{path}"), headers)?;
    Ok((answer.status.as_u16(), answer.text()))
}

fn limiterd(netns: &Netns, args: &[&str], env: &[(&str, &Path)]) -> Result<(bool, String)> {
    let Output {
        status,
        stdout,
        stderr,
    } = netns.enter(|| {
        let mut command = Command::new(binary());
        command.env_remove("LIMITERD_TOKEN_FILE").args(args);
        Ok(command.envs(env.iter().copied()).output()?)
    })?;
    let text = String::from_utf8(stdout)? + &String::from_utf8(stderr)?;
    Ok((status.success(), text))
}

/// Sends SIGHUP, and waits until the files were read again.
fn reload(netns: &Netns, daemon: &Daemon, token: &str) -> Result<()> {
    let bearer = format!("Bearer {token}");
    let reloads = || -> Result<f64> {
        let (status, text) = admin(netns, "GET", "/metrics", &[("authorization", &bearer)])?;
        ensure!(status == 200, "{text}");
        Ok(metrics::parse(&text).sum("limiterd_policy_reloads_total", &[]))
    };
    let before = reloads()?;
    daemon.process.signal(Signal::HUP)?;
    eventually("the reload", || Ok((reloads()? > before).then_some(())))
}

#[test]
fn without_tokens_the_place_decides_and_pages_change_nothing() -> Result<()> {
    let netns = Netns::new("place")?;
    netns.ip(&["address", "add", &format!("{OUTSIDE}/32"), "dev", "lo"])?;
    let policies = policies("address: '0.0.0.0:9901', hostnames: [gw.example]")?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let said = daemon.process.output();
    assert!(said.contains("nobody may change anything"), "{said}");

    // From elsewhere one may look, and is told what to do about the rest.
    let outside = |method, path| ask(&netns, method, &format!("http://{OUTSIDE}:9901{path}"), &[]);
    for path in ["/live", "/ready", "/metrics", "/config"] {
        assert_eq!(outside("GET", path)?.status, 200, "{path}");
    }
    for (method, path) in [
        ("POST", CHANGE),
        ("POST", "/blocks"),
        ("DELETE", "/counters/one?name=local:x@y"),
        ("POST", "/drain_listeners"),
        ("POST", "/logging?level=off"),
    ] {
        let refused = outside(method, path)?;
        assert_eq!(refused.status, 403, "{method} {path}");
        assert!(
            refused.text().contains("name tokens or clients"),
            "{refused:?}"
        );
    }
    assert_eq!(admin(&netns, "POST", CHANGE, &[])?.0, 200);

    // A page whose name was made to resolve to here may not even look.
    for host in ["evil.example:9901", "127.0.0.1.evil.example"] {
        for (method, path) in [("GET", "/config"), ("POST", CHANGE)] {
            let (status, text) = admin(&netns, method, path, &[("host", host)])?;
            assert!(
                status == 403 && text.contains("spec.admin.hostnames"),
                "{text}"
            );
        }
        // Load balancers ask with the name of what they balance.
        assert_eq!(admin(&netns, "GET", "/live", &[("host", host)])?.0, 200);
    }
    for host in ["gw.example:9901", "localhost", "[::1]:1"] {
        assert_eq!(admin(&netns, "POST", CHANGE, &[("host", host)])?.0, 200);
    }
    for page in [
        ("origin", "http://127.0.0.1:9901"),
        ("sec-fetch-site", "same-site"),
    ] {
        for (method, path) in [
            ("POST", CHANGE),
            ("POST", "/blocks"),
            ("POST", "/drain_listeners"),
        ] {
            let refused = admin(&netns, method, path, &[page])?;
            assert_eq!(refused, (403, "not for web pages\n".to_owned()));
        }
    }

    // All of it is written down, with whoever it was.
    let (_, text) = admin(&netns, "GET", "/audit", &[])?;
    let audit: Value = serde_json::from_str(&text)?;
    let entries = audit["entries"].as_array().context("no entries")?;
    let of = |who: &str, outcome: &str| {
        let those = entries.iter();
        those
            .filter(|one| one["who"] == who && one["outcome"] == outcome)
            .count()
    };
    assert_eq!(of(OUTSIDE, "refused"), 5, "{text}");
    assert_eq!(
        (of("127.0.0.1", "refused"), of("127.0.0.1", "done")),
        (8, 4),
        "{text}"
    );
    let page = daemon.metrics(&netns)?;
    let count = |name: &str, label: (&str, &str)| page.sum(name, &[label]);
    assert_eq!(
        count("limiterd_admin_writes_total", ("outcome", "refused")),
        13.0
    );
    assert_eq!(
        count("limiterd_admin_denied_total", ("reason", "host")),
        4.0
    );
    assert_eq!(
        count("limiterd_admin_denied_total", ("reason", "web_page")),
        6.0
    );
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn tokens_are_read_from_files_and_again_at_a_reload() -> Result<()> {
    let netns = Netns::new("tokens")?;
    let tokens = Tokens::new()?;
    let policies = policies(&tokens.settings())?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let show = |token: &str| format!("Bearer {token}");
    let by = |token: &str, method: &str, path: &str| -> Result<u16> {
        Ok(admin(&netns, method, path, &[("authorization", &show(token))])?.0)
    };

    // Probes and the page are for everybody; what there is to read is not, on loopback either.
    let (status, text) = admin(&netns, "GET", "/ready", &[])?;
    assert_eq!((status, text.as_str()), (200, "ready\n"));
    for path in ["/live", "/"] {
        assert_eq!(admin(&netns, "GET", path, &[])?.0, 200);
    }
    for (method, path) in [
        ("GET", "/metrics"),
        ("GET", "/audit"),
        ("POST", CHANGE),
        ("POST", "/explain"),
    ] {
        let answer = ask(&netns, method, &format!("http://{ADMIN}{path}"), &[])?;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(
            answer.header("www-authenticate"),
            "Bearer realm=\"limiterd\""
        );
    }
    assert_eq!(
        (by(READER, "GET", "/config")?, by(READER, "POST", CHANGE)?),
        (200, 403)
    );
    assert_eq!(
        (by(WRITER, "GET", "/config")?, by(WRITER, "POST", CHANGE)?),
        (200, 200)
    );
    assert_eq!(by("wrong-0123456789abcdef", "GET", "/config")?, 401);

    // The command line shows one.
    let (reader, writer) = (tokens.path("reader"), tokens.path("writer"));
    let reader_arg = reader.to_str().context("a path")?;
    let (well, text) = limiterd(&netns, &["status"], &[])?;
    assert!(!well && text.contains("--token-file"), "{text}");
    let (well, text) = limiterd(&netns, &["log", "--token-file", reader_arg], &[])?;
    assert!(well && text.contains("logged: info"), "{text}");
    let (well, text) = limiterd(&netns, &["log", "warn", "--token-file", reader_arg], &[])?;
    assert!(!well && text.contains("access: Write"), "{text}");
    let env = [("LIMITERD_TOKEN_FILE", writer.as_path())];
    let (well, text) = limiterd(&netns, &["log", "warn"], &env)?;
    assert!(
        well && text.contains("logged: warn; configured: info"),
        "{text}"
    );

    // Who did what is in the log, whatever else is logged, and no token is in it.
    let (well, told) = limiterd(&netns, &["audit"], &env)?;
    assert!(
        well && told.contains("done  token oncall from 127.0.0.1:"),
        "{told}"
    );
    assert!(told.contains("refused  token prometheus"), "{told}");
    let said = daemon.process.output();
    for words in [
        "who=\"oncall\" by=\"token\"",
        "outcome=\"refused\"",
        "path=\"/logging?level=warn\"",
    ] {
        assert!(said.contains(words), "{words} in\n{said}");
    }
    assert!(!said.contains(READER) && !said.contains(WRITER), "{said}");
    assert_eq!(by(WRITER, "POST", CHANGE)?, 200);
    let lines = daemon.process.output();
    assert!(
        lines
            .lines()
            .filter(|line| line.contains("who=\"oncall\""))
            .count()
            > 2,
        "{lines}"
    );
    assert_eq!(by(WRITER, "POST", "/logging?level=")?, 200);

    // The next one is handed out beside the one before, which then goes.
    let next = "next-writer-0123456789";
    tokens.write("writer", &format!("{WRITER}\n{next}\n"))?;
    assert_eq!(by(next, "GET", "/config")?, 401);
    reload(&netns, &daemon, READER)?;
    assert_eq!(
        (by(WRITER, "POST", CHANGE)?, by(next, "POST", CHANGE)?),
        (200, 200)
    );
    tokens.write("writer", next)?;
    reload(&netns, &daemon, READER)?;
    assert_eq!(
        (by(WRITER, "POST", CHANGE)?, by(next, "POST", CHANGE)?),
        (401, 200)
    );

    // A file that cannot be used changes nothing.
    for (text, wanted) in [
        ("short", "too short"),
        ("", "has 0 tokens"),
        ("not a token at all", "no token has"),
    ] {
        tokens.write("writer", text)?;
        reload(&netns, &daemon, READER)?;
        assert_eq!(by(next, "POST", CHANGE)?, 200);
        let bearer = show(READER);
        let (_, report) = admin(&netns, "GET", "/ready", &[("authorization", &bearer)])?;
        assert!(
            report.contains(wanted) && report.contains("spec.admin.tokens[1].path"),
            "{report}"
        );
        let (_, for_all) = admin(&netns, "GET", "/ready", &[])?;
        assert_eq!(for_all, "ready\n");
    }
    std::fs::remove_file(&writer)?;
    reload(&netns, &daemon, READER)?;
    assert_eq!(
        (by(next, "POST", CHANGE)?, by(READER, "GET", "/config")?),
        (200, 200)
    );

    // One that everybody can read can be used, and is warned of.
    tokens.write("writer", next)?;
    std::fs::set_permissions(&writer, Permissions::from_mode(0o644))?;
    reload(&netns, &daemon, READER)?;
    let said = daemon.process.output();
    assert!(
        said.contains("may be read or written by every user (mode 0644)"),
        "{said}"
    );
    assert_eq!(by(next, "POST", CHANGE)?, 200);
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn a_token_file_that_cannot_be_used_starts_nothing() -> Result<()> {
    let netns = Netns::new("wrong")?;
    let tokens = Tokens::new()?;
    tokens.write("writer", "short")?;
    let policies = policies(&tokens.settings())?;
    let mut process = Process::start(
        &netns,
        &[
            "run",
            "--config",
            policies.path().to_str().context("a path")?,
        ],
    )?;
    assert_eq!(process.wait()?.code(), Some(1));
    let said = process.output();
    assert!(
        said.contains("spec.admin.tokens[1].path") && said.contains("openssl rand"),
        "{said}"
    );
    Ok(())
}

#[test]
fn certificates_say_who_it_is() -> Result<()> {
    let netns = Netns::new("mtls")?;
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let files = tempfile::tempdir()?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = files.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_str().context("a path")?.to_owned())
    };
    let ca = write("ca.pem", &authority.pem())?;
    let client = |by: &Authority, name: &str| -> Result<[String; 2]> {
        let [cert, key] = by.pair(name)?;
        Ok([
            write(&format!("{name}.pem"), &cert)?,
            write(&format!("{name}.key"), &key)?,
        ])
    };
    let (metrics, oncall) = (
        client(&authority, "metrics.test")?,
        client(&authority, "oncall.test")?,
    );
    let (guest, forged) = (
        client(&authority, "guest.test")?,
        client(&stranger, "forged.test")?,
    );
    let settings = "tls: {certificateRefs: [{name: admin}], clientValidation: {optional: true, caCertificateRefs: [{name: admin}]}}, \
        clients: [{subjectAltName: metrics.test, access: Read}, {subjectAltName: OnCall.test, access: Write}]";
    let policies = policies(settings)?;
    policies.write(
        "secret.yaml",
        &authority.secret_with_authority("admin", "127.0.0.1")?,
    )?;
    let dir = policies.path().to_str().context("a path")?;
    let process = Process::start(&netns, &["run", "--config", dir])?;

    let url = format!("https://{ADMIN}");
    let by = |pair: Option<&[String; 2]>, args: &[&str]| {
        let mut all = [args, &["--admin", &url, "--ca", &ca]].concat();
        if let Some([cert, key]) = pair {
            all.extend(["--cert", cert, "--key", key]);
        }
        limiterd(&netns, &all, &[])
    };
    eventually("the daemon to be ready", || {
        Ok(by(Some(&metrics), &["status"])?.0.then_some(()))
    })
    .with_context(|| process.output())?;
    let (well, text) = by(Some(&metrics), &["log", "debug"])?;
    assert!(!well && text.contains("access: Write"), "{text}");
    let (well, text) = by(Some(&oncall), &["log", "debug"])?;
    assert!(well, "{text}");
    let (well, text) = by(Some(&guest), &["status"])?;
    assert!(
        !well && text.contains("no name of spec.admin.clients"),
        "{text}"
    );
    let (well, text) = by(None, &["status"])?;
    assert!(!well && text.contains("say who you are"), "{text}");
    let (well, text) = by(Some(&forged), &["status"])?;
    assert!(!well, "{text}");
    let (well, text) = by(Some(&oncall), &["audit"])?;
    assert!(
        well && text.contains("done  certificate oncall.test from 127.0.0.1:"),
        "{text}"
    );
    assert!(text.contains("refused  certificate metrics.test"), "{text}");

    // Who does not speak TLS is not spoken to, and whose certificate is not trusted is not told.
    let (well, text) = limiterd(&netns, &["status"], &[])?;
    assert!(!well, "{text}");
    let other = write("other.pem", &stranger.pem())?;
    let (well, text) = limiterd(&netns, &["status", "--admin", &url, "--ca", &other], &[])?;
    assert!(!well && text.contains("--ca"), "{text}");
    // A probe shows nothing.
    let mut probe = authority.connect(&netns, ADMIN, "127.0.0.1")?;
    probe.send("GET /live HTTP/1.1\r\nhost: x\r\n\r\n")?;
    assert_eq!(probe.answer()?.0, 200);

    // A certificate that is not there any more leaves the one before.
    policies.write("secret.yaml", "")?;
    eventually("the reload", || {
        Ok(process
            .output()
            .contains("without what is not valid")
            .then_some(()))
    })
    .with_context(|| process.output())?;
    let (well, text) = by(Some(&oncall), &["log", "--reset"])?;
    assert!(well, "{text}");
    Ok(())
}

#[test]
fn the_unix_socket_knows_its_users() -> Result<()> {
    let netns = Netns::new("unix")?;
    let tokens = Tokens::new()?;
    let policies = policies(&tokens.settings())?;
    let path = tokens.path("admin.sock");
    let socket = UnixListener::bind(&path)?;
    let mut command = activated(&[("admin", socket.as_fd())]);
    command.args(["run", "--config"]).arg(policies.path());
    let process = Process::spawn(&netns, command)?;
    let at = path.to_str().context("a path")?;
    eventually("the daemon to be ready", || {
        Ok(limiterd(&netns, &["status", "--admin", at], &[])?
            .0
            .then_some(()))
    })
    .with_context(|| process.output())?;
    let (well, text) = limiterd(&netns, &["log", "debug", "--admin", at], &[])?;
    assert!(well, "{text}");
    let (well, text) = limiterd(&netns, &["audit", "--admin", &format!("unix:{at}")], &[])?;
    assert!(
        well && text.contains("done  uid 0: POST /logging?level=debug"),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_node_goes_out_of_service_and_serves_who_comes() -> Result<()> {
    let netns = Netns::new("drain")?;
    let _backend = demo_backend(&netns)?;
    let policies = policies("address: '127.0.0.1:9901'")?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let served = || -> Result<u16> {
        let answer = netns.enter(|| get("http://127.0.0.1:8080/"))?;
        Ok(answer.status.as_u16())
    };
    assert_eq!(served()?, 200);
    for _again in 0..2 {
        let (well, text) = limiterd(&netns, &["drain"], &[])?;
        assert!(well && text.contains("draining"), "{text}");
    }
    eventually("it to say so", || {
        let (status, text) = admin(&netns, "GET", "/ready", &[])?;
        Ok((status == 503 && text.starts_with("draining\n")).then_some(()))
    })?;
    assert_eq!(
        (served()?, admin(&netns, "GET", "/live", &[])?.0),
        (200, 200)
    );
    assert_eq!(admin(&netns, "GET", "/drain_listeners", &[])?.0, 405);
    // Nor does a reload bring it back.
    daemon.reload(&netns)?;
    assert_eq!(
        (served()?, admin(&netns, "GET", "/ready", &[])?.0),
        (200, 503)
    );
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn what_is_logged_changes_while_it_runs() -> Result<()> {
    let netns = Netns::new("logged")?;
    let policies = policies("address: '127.0.0.1:9901'")?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let quiet = "the policy files are what they were";
    let same = route("api", "/");
    policies.write("route.yaml", &same)?;
    let (well, text) = limiterd(&netns, &["log", "debug"], &[])?;
    assert!(well && text.contains("info,limiter_daemon=debug"), "{text}");
    eventually("a line of that level", || {
        policies.write("route.yaml", &same)?;
        Ok(daemon.process.output().contains(quiet).then_some(()))
    })?;
    let (well, text) = limiterd(&netns, &["log", "--filter", "limiter_daemon=loud"], &[])?;
    assert!(
        !well && text.contains("POST /logging?level=LEVEL"),
        "{text}"
    );
    let (well, text) = limiterd(&netns, &["log", "--reset"], &[])?;
    assert!(well && text.contains("logged: info;"), "{text}");
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn the_dashboard_asks_for_a_token() -> Result<()> {
    let netns = Netns::new("page")?;
    let tokens = Tokens::new()?;
    let policies = policies(&tokens.settings())?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let mut browser = Browser::start(&netns)?;
    browser.open(&format!("http://{ADMIN}/"))?;
    let shown = "!document.getElementById('who').hidden";
    browser.until(shown)?;
    let enter = |token: &str| {
        format!(
            "(() => {{ document.getElementById('token').value = '{token}'; \
             document.querySelector('#who button').click(); return true; }})()"
        )
    };
    browser.value(&enter("wrong-0123456789abcdef"))?;
    browser.until(shown)?;
    browser.until("document.getElementById('trouble').textContent.includes('no token of')")?;
    browser.value(&enter(READER))?;
    browser.until("Number(document.body.dataset.looks) >= 2")?;
    assert_eq!(browser.text("state")?, "ready");
    assert_eq!(browser.value(shown)?, false);
    // It is this tab's, and in no address.
    browser.open(&format!("http://{ADMIN}/"))?;
    browser.until("Number(document.body.dataset.looks) >= 1")?;
    assert!(browser.asked.iter().all(|url| !url.contains(READER)));
    assert!(daemon.stop()?.success());
    Ok(())
}
