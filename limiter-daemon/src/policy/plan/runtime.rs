//! Names of settings that may be changed while running: percentages of requests, as Envoy has them.

/// Part of the requests that filters ask about.
pub const ENABLED: &str = "ratelimit.http_filter_enabled";
/// Part of the requests that are denied if a filter's answer says so.
pub const ENFORCING: &str = "ratelimit.http_filter_enforcing";
/// What there is, in words.
pub const NAMES: &str = "there are `ratelimit.http_filter_enabled`, \
                         `ratelimit.http_filter_enforcing` and \
                         `ratelimit.<disableKey>.http_filter_enabled`";

const PREFIX: &str = "ratelimit.";
const SUFFIX: &str = ".http_filter_enabled";
/// Bytes of a name.
const MAX: usize = 128;

/// The name of the setting that switches off descriptors with this `disableKey`.
#[must_use]
pub fn of_key(disable_key: &str) -> String {
    format!("{PREFIX}{disable_key}{SUFFIX}")
}

/// Whether there is such a setting.
///
/// # Errors
/// What is wrong with the name.
pub fn check_name(name: &str) -> Result<(), String> {
    if name == ENABLED || name == ENFORCING {
        return Ok(());
    }
    let key = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    match key {
        Some(key) if !key.is_empty() && name.len() <= MAX && key.bytes().all(plain) => Ok(()),
        _ => {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(MAX).collect();
            Err(format!("there is no setting `{shown}`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let table = [
            (ENABLED, true),
            (ENFORCING, true),
            ("ratelimit.login.http_filter_enabled", true),
            ("ratelimit.a.b-c_d.http_filter_enabled", true),
            ("ratelimit..http_filter_enabled", false),
            ("ratelimit.a b.http_filter_enabled", false),
            ("ratelimit.login.http_filter_enforcing", false),
            ("ratelimit.tcp_filter_enabled", false),
            ("", false),
        ];
        for (name, known) in table {
            assert_eq!(check_name(name).is_ok(), known, "{name}");
        }
        assert_eq!(check_name(&of_key("login")), Ok(()));
        assert!(check_name(&of_key(&"k".repeat(MAX))).is_err());
    }
}
