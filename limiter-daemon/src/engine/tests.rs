//! Listeners that share an address.

use super::*;
use crate::policy::plan::Hostname;

#[test]
fn the_most_specific_listener_takes_a_host() {
    let a: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let b: SocketAddr = "127.0.0.1:81".parse().unwrap();
    let listener = |name: &str, hostname, binds: &[SocketAddr]| plan::Listener {
        name: name.into(),
        hostname,
        binds: binds.to_vec(),
        ..plan::Listener::default()
    };
    let wildcard = Hostname::Wildcard(".example.com".into());
    let exact = Hostname::Exact("a.example.com".into());
    let plan = Plan {
        listeners: vec![
            listener("wildcard", wildcard, &[a]),
            listener("exact", exact.clone(), &[a, b]),
            listener("any", Hostname::Any, &[a]),
            listener("same", exact, &[a]),
        ],
        ..Plan::default()
    };
    let engine = Engine::compile(&plan, &State::new(16));
    for (bind, host, wanted) in [
        (a, "a.example.com", Some(1)),
        (a, "b.example.com", Some(0)),
        (a, "c.b.example.com", Some(0)),
        (a, "example.com", Some(2)),
        (a, "", Some(2)),
        (b, "a.example.com", Some(1)),
        (b, "b.example.com", None),
        ("127.0.0.1:82".parse().unwrap(), "a.example.com", None),
    ] {
        assert_eq!(engine.listener(bind, host), wanted, "{bind} {host}");
    }
    assert_eq!(engine.first_listener(a), Some(0));
    assert_eq!(engine.first_listener(b), Some(1));
}
