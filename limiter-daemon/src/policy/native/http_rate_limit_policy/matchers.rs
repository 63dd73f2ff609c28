//! Matchers of headers and query parameters (Envoy's `HeaderMatcher`, `QueryParameterMatcher` and
//! `StringMatcher`).

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use super::action::source;
use crate::policy::decode::{At, Ignored};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::route_match::{self, MAX_REGEX};
use crate::policy::plan::{
    HeaderMatcher, HeaderTest, ParameterMatcher, ParameterTest, TextPattern, TextTest,
};

const MAX: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHeaderMatcher {
    name: At<String>,
    #[serde(alias = "exact_match")]
    exact_match: Option<At<String>>,
    #[serde(alias = "safe_regex_match")]
    safe_regex_match: Option<RawRegex>,
    #[serde(alias = "range_match")]
    range_match: Option<At<RawRange>>,
    #[serde(alias = "present_match")]
    present_match: Option<bool>,
    #[serde(alias = "prefix_match")]
    prefix_match: Option<At<String>>,
    #[serde(alias = "suffix_match")]
    suffix_match: Option<At<String>>,
    #[serde(alias = "contains_match")]
    contains_match: Option<At<String>>,
    #[serde(alias = "string_match")]
    string_match: Option<At<RawText>>,
    #[serde(alias = "invert_match")]
    invert_match: Option<bool>,
    #[serde(alias = "treat_missing_header_as_empty")]
    treat_missing_header_as_empty: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawParameterMatcher {
    name: At<String>,
    #[serde(alias = "string_match")]
    string_match: Option<At<RawText>>,
    #[serde(alias = "present_match")]
    present_match: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawText {
    exact: Option<At<String>>,
    prefix: Option<At<String>>,
    suffix: Option<At<String>>,
    contains: Option<At<String>>,
    #[serde(alias = "safe_regex")]
    safe_regex: Option<RawRegex>,
    #[serde(alias = "ignore_case")]
    ignore_case: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRegex {
    regex: At<String>,
    /// Which engine, of which there is one.
    #[expect(dead_code, reason = "named, so that no other passes")]
    #[serde(alias = "google_re2")]
    google_re2: Option<Ignored>,
}

#[derive(Debug, Deserialize)]
struct RawRange {
    start: i64,
    end: i64,
}

/// Checks the matchers of an action; `None` after an error.
pub(super) fn headers(
    list: At<Vec<At<RawHeaderMatcher>>>,
    scope: &mut Scope<'_>,
) -> Option<Vec<HeaderMatcher>> {
    check_length(&list.mark, list.len(), scope)?;
    let lowered: Vec<_> = list
        .value
        .into_iter()
        .map(|raw| header(raw, scope))
        .collect();
    lowered.into_iter().collect()
}

/// Checks the matchers of an action; `None` after an error.
pub(super) fn parameters(
    list: At<Vec<At<RawParameterMatcher>>>,
    scope: &mut Scope<'_>,
) -> Option<Vec<ParameterMatcher>> {
    check_length(&list.mark, list.len(), scope)?;
    let lowered: Vec<_> = list
        .value
        .into_iter()
        .map(|raw| parameter(raw, scope))
        .collect();
    lowered.into_iter().collect()
}

fn check_length(mark: &Mark, length: usize, scope: &mut Scope<'_>) -> Option<()> {
    if length == 0 {
        scope.error(
            mark,
            "there is nothing to match",
            "give it at least one matcher",
        );
        return None;
    }
    scope.at_most(mark, length, MAX);
    Some(())
}

fn header(
    At { value: raw, mark }: At<RawHeaderMatcher>,
    scope: &mut Scope<'_>,
) -> Option<HeaderMatcher> {
    let header = source(&raw.name, scope);
    let mut tests: Vec<Option<HeaderTest>> = Vec::new();
    let plain = |looks_for| {
        Some(HeaderTest::Text(TextTest {
            looks_for,
            ignore_case: false,
        }))
    };
    tests.extend(
        raw.exact_match
            .map(|text| plain(TextPattern::Exact(text.value))),
    );
    tests.extend(
        raw.prefix_match
            .map(|text| plain(TextPattern::Prefix(text.value))),
    );
    tests.extend(
        raw.suffix_match
            .map(|text| plain(TextPattern::Suffix(text.value))),
    );
    tests.extend(
        raw.contains_match
            .map(|text| plain(TextPattern::Contains(text.value))),
    );
    tests.extend(
        raw.safe_regex_match
            .map(|raw| plain(TextPattern::Regex(regex(&raw, scope)?))),
    );
    tests.extend(
        raw.string_match
            .map(|raw| text(raw, scope).map(HeaderTest::Text)),
    );
    tests.extend(raw.range_match.map(|raw| range(&raw, scope)));
    tests.extend(
        raw.present_match
            .map(|present| Some(HeaderTest::Present(present))),
    );
    if tests.len() > 1 {
        two_tests(&mark, scope);
        return None;
    }
    Some(HeaderMatcher {
        header: header?,
        // Envoy: a name alone asks whether it is there.
        test: tests.pop().unwrap_or(Some(HeaderTest::Present(true)))?,
        invert: raw.invert_match.unwrap_or_default(),
        missing_is_empty: raw.treat_missing_header_as_empty.unwrap_or_default(),
    })
}

fn parameter(
    At { value: raw, mark }: At<RawParameterMatcher>,
    scope: &mut Scope<'_>,
) -> Option<ParameterMatcher> {
    if raw.name.is_empty() {
        scope.error(&raw.name.mark, "a parameter has a name", "write it");
        return None;
    }
    let test = match (raw.string_match, raw.present_match) {
        (Some(_), Some(_)) => {
            two_tests(&mark, scope);
            return None;
        }
        (Some(raw), None) => ParameterTest::Text(text(raw, scope)?),
        (None, present) => ParameterTest::Present(present.unwrap_or(true)),
    };
    Some(ParameterMatcher {
        name: raw.name.value,
        test,
    })
}

fn two_tests(mark: &Mark, scope: &mut Scope<'_>) {
    scope.error(
        mark,
        "a matcher has one test",
        "make a matcher of each: all of them must match",
    );
}

fn text(At { value: raw, mark }: At<RawText>, scope: &mut Scope<'_>) -> Option<TextTest> {
    let ignore_case = raw.ignore_case.unwrap_or_default();
    let cased = |text: At<String>| {
        if ignore_case {
            text.value.to_ascii_lowercase()
        } else {
            text.value
        }
    };
    let mut patterns: Vec<Option<TextPattern>> = Vec::new();
    patterns.extend(raw.exact.map(|text| Some(TextPattern::Exact(cased(text)))));
    patterns.extend(
        raw.prefix
            .map(|text| Some(TextPattern::Prefix(cased(text)))),
    );
    patterns.extend(
        raw.suffix
            .map(|text| Some(TextPattern::Suffix(cased(text)))),
    );
    patterns.extend(
        raw.contains
            .map(|text| Some(TextPattern::Contains(cased(text)))),
    );
    if let Some(raw) = raw.safe_regex {
        if ignore_case {
            scope.error(
                &raw.regex.mark,
                "`ignoreCase` has no effect on an expression",
                "write `(?i)` at its beginning, and remove `ignoreCase`",
            );
            return None;
        }
        patterns.push(regex(&raw, scope).map(TextPattern::Regex));
    }
    let several = patterns.len() > 1;
    match patterns.pop() {
        Some(pattern) if !several => Some(TextTest {
            looks_for: pattern?,
            ignore_case,
        }),
        _ => {
            scope.error(
                &mark,
                "a text is tested in one way",
                "write one of `exact`, `prefix`, `suffix`, `contains` and `safeRegex`",
            );
            None
        }
    }
}

fn range(At { value: raw, mark }: &At<RawRange>, scope: &mut Scope<'_>) -> Option<HeaderTest> {
    if raw.start >= raw.end {
        let message = format!("nothing is from {} to before {}", raw.start, raw.end);
        scope.error(mark, message, "write the smaller number as `start`");
        return None;
    }
    Some(HeaderTest::Range(raw.start, raw.end))
}

fn regex(raw: &RawRegex, scope: &mut Scope<'_>) -> Option<Regex> {
    let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_REGEX).build();
    route_match::whole(&raw.regex, scope, compile)
}
