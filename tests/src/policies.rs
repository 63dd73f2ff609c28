//! Policy files that several scenarios share.

use crate::topology::Pins;

/// A Gateway on port 8080 of every address, and a Backend for the demo backend.
pub const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg}
spec:
  gatewayClassName: limiterd
  listeners:
  - {name: http, protocol: HTTP, port: 8080}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: demo}
spec:
  endpoints:
  - ip: {address: 127.0.0.1, port: 3000}
";

/// An HTTPRoute from a path to the demo backend.
#[must_use]
pub fn route(name: &str, path: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: eg}}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]
    backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: demo}}]
"
    )
}

/// A BackendTrafficPolicy with these local rules (YAML flow or block, indented as a list item).
#[must_use]
pub fn traffic(name: &str, target: (&str, &str), rules: &str) -> String {
    let (kind, target) = target;
    format!(
        "\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: {kind}, name: {target}}}]
  rateLimit:
    local:
      rules:
{rules}"
    )
}

/// An HTTPRoute for a host, from all its paths to the demo backend.
#[must_use]
pub fn host_route(name: &str) -> String {
    format!(
        "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: eg}}]
  hostnames: [{name}.test]
  rules: [{{backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: demo}}]}}]
"
    )
}

/// A BackendTrafficPolicy on a target (`kind: ..., name: ...`), with this in its `rateLimit` (YAML in
/// flow style).
#[must_use]
pub fn limits(name: &str, target: &str, rate_limit: &str) -> String {
    format!(
        "\
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]
  rateLimit: {{{rate_limit}}}
"
    )
}

/// [`host_route`], and [`limits`] of the same name on it.
#[must_use]
pub fn limited_host(name: &str, rate_limit: &str) -> String {
    let target = format!("kind: HTTPRoute, name: {name}");
    host_route(name) + &limits(name, &target, rate_limit)
}

/// A Backend with endpoints on these ports of 127.0.0.1, an HTTPRoute of the same name from a host to
/// it, and a BackendTrafficPolicy on that with this spec (YAML in block style, indented by two).
#[must_use]
pub fn treated_host(name: &str, ports: &[u16], spec: &str) -> String {
    let endpoints: Vec<_> = ports
        .iter()
        .map(|port| format!("{{ip: {{address: 127.0.0.1, port: {port}}}}}"))
        .collect();
    let endpoints = endpoints.join(", ");
    format!(
        "\
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: {name}}}
spec: {{endpoints: [{endpoints}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: eg}}]
  hostnames: [{name}.test]
  rules: [{{backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}]}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {name}}}]
{spec}"
    )
}

/// A NetworkRateLimitPolicy on the Gateway.
#[must_use]
pub fn network(name: &str, limits: &str) -> String {
    format!(
        "\
apiVersion: limiterd.io/v1alpha1
kind: NetworkRateLimitPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: eg}}]
{limits}"
    )
}

/// A LimiterConfig with these interfaces and a pin path of its own.
#[must_use]
pub fn config(interfaces: &[&str], pins: &Pins, on_exit: &str) -> String {
    let interfaces: Vec<_> = interfaces
        .iter()
        .map(|name| format!("{{name: {name}}}"))
        .collect();
    format!(
        "\
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec:
  interfaces: [{}]
  kernel: {{pinPath: {}, onExit: {on_exit}}}
",
        interfaces.join(", "),
        pins.path()
    )
}
