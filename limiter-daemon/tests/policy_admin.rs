//! Files with tokens for the admin listener: what is taken, and what each fault says.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use limiter_daemon::policy::plan::{Access, TokenDigest};
use limiter_daemon::policy::{self, Outcome};

mod policy_support;

use policy_support::Scratch;

const ONE: &str = "one-0123456789abcdef";
const TWO: &str = "two-0123456789abcdef";

const CONFIG: &str = "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: { name: limiterd }
spec:
  admin:
    tokens:
      - { name: reader, path: reader.token, access: Read }
      - { name: writer, path: writer.token, access: Write }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: eg }
spec:
  listeners: [{ name: http, protocol: HTTP, port: 8080 }]
";

struct Files(Scratch);

impl Files {
    fn new(name: &str) -> Self {
        let files = Self(Scratch::new(name));
        std::fs::write(files.0.0.join("limiterd.yaml"), CONFIG).unwrap();
        files.token("reader", ONE);
        files.token("writer", TWO);
        files
    }

    fn token(&self, whose: &str, text: &str) {
        let path = self.0.0.join(format!("{whose}.token"));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    fn load(&self) -> Outcome {
        policy::load(&self.0.0)
    }
}

fn told(outcome: &Outcome) -> String {
    let lines = outcome.diagnostics.iter().map(ToString::to_string);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn tokens_are_read_beside_the_policy_and_never_kept_as_they_are() {
    let files = Files::new("admin-tokens");
    files.token(
        "writer",
        &format!("\n  {TWO}  \r\nnext+0123456789/abcdef==\n\n"),
    );
    let outcome = files.load();
    assert_eq!(told(&outcome), "");
    let access = outcome.plan.unwrap().admin;
    let [reader, writer] = &access.tokens[..] else {
        panic!("{access:?}");
    };
    assert_eq!(
        (reader.access, writer.access),
        (Access::Read, Access::Write)
    );
    assert_eq!(reader.digests, [TokenDigest::of(ONE)]);
    assert_eq!(
        writer.digests,
        ["next+0123456789/abcdef==", TWO].map(TokenDigest::of)
    );
    assert!(!format!("{access:?}").contains(&ONE[..4]));
}

#[test]
fn each_fault_of_a_token_file_is_told_and_no_token_is() {
    let files = Files::new("admin-faults");
    let many = (0..5).map(|number| format!("{number}-0123456789abcdef\n"));
    for (text, wanted) in [
        (String::new(), "has 0 tokens"),
        (many.collect(), "has 5 tokens"),
        ("0123456789abcde".to_owned(), "the token in line 1"),
        (
            format!("{TWO}\n{}", "a".repeat(4097)),
            "the token in line 2",
        ),
        (
            "secret 0123456789abcdef".to_owned(),
            "characters that no token has",
        ),
        (ONE.to_owned(), "is also a token of `reader`"),
    ] {
        files.token("writer", &text);
        let outcome = files.load();
        let said = told(&outcome);
        assert!(outcome.plan.is_none(), "{said}");
        assert!(
            said.contains("spec.admin.tokens[1].path") && said.contains(wanted),
            "{said}"
        );
        assert!(
            !said.contains("secret") && !said.contains("0123456789"),
            "{said}"
        );
    }
}

#[test]
fn a_fault_at_a_reload_leaves_the_tokens_as_they_were() {
    let files = Files::new("admin-reload");
    let first = files.load();
    files.token("writer", "short");
    files.token("reader", "reader-next-0123456789");
    let second = policy::reload(&files.0.0, &first);
    let plan = |outcome: &Outcome| outcome.plan.clone().unwrap().admin;
    assert_eq!(plan(&second), plan(&first));
    assert_eq!(second.kept, ["LimiterConfig default/limiterd"]);
    files.token("writer", TWO);
    let third = policy::reload(&files.0.0, &second);
    assert_eq!(told(&third), "");
    assert_ne!(plan(&third), plan(&first));
}

#[test]
fn a_file_that_everybody_can_read_is_warned_of() {
    let files = Files::new("admin-mode");
    let path = files.0.0.join("reader.token");
    for (mode, warned) in [(0o640, false), (0o644, true), (0o602, true)] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let outcome = files.load();
        let said = told(&outcome);
        assert!(outcome.plan.is_some(), "{said}");
        assert_eq!(
            said.contains(&format!("(mode {mode:04o})")),
            warned,
            "{said}"
        );
    }
}
