//! Paths in one shape: `.` and `..` resolved and slashes merged (Envoy Gateway's defaults), so that
//! no limit is got around by spelling a path differently from how the upstream reads it.

use std::borrow::Cow;

use http::Request;

use super::filters;
use super::respond::Refusal;

/// Brings the path of `request` into its normal form.
///
/// # Errors
/// [`Refusal::BadRequest`]: it leads above the root.
pub(super) fn normalise<B>(request: &mut Request<B>) -> Result<(), Refusal> {
    let normal = normal(request.uri().path());
    match normal.ok_or(Refusal::BadRequest("a path that leads above the root"))? {
        Cow::Borrowed(_as_it_is) => {}
        Cow::Owned(normal) => filters::set_path(request, &normal),
    }
    Ok(())
}

/// `path` in its normal form; `None`: it leads above the root.
pub(super) fn normal(path: &str) -> Option<Cow<'_, str>> {
    if !needs_work(path) {
        return Some(Cow::Borrowed(path));
    }
    let mut segments: Vec<Cow<'_, str>> = Vec::new();
    let mut directory = false;
    for segment in path.split('/') {
        let segment = dots(segment);
        directory = matches!(&*segment, "" | "." | "..");
        match &*segment {
            "" | "." => {}
            ".." => {
                segments.pop()?;
            }
            _ => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if directory {
        normal.push('/');
    }
    Some(Cow::Owned(normal))
}

fn needs_work(path: &str) -> bool {
    let bytes = path.as_bytes();
    // `*` of OPTIONS is no path.
    bytes.first() == Some(&b'/')
        && bytes
            .windows(2)
            .any(|two| two == b"//" || two == b"/." || (two[0] == b'%' && two[1] == b'2'))
}

/// The segment with its dots written as such (RFC 3986 section 6.2.2.2).
fn dots(segment: &str) -> Cow<'_, str> {
    let bytes = segment.as_bytes();
    let escaped = bytes
        .windows(3)
        .any(|three| three.eq_ignore_ascii_case(b"%2e"));
    if escaped {
        Cow::Owned(segment.replace("%2e", ".").replace("%2E", "."))
    } else {
        Cow::Borrowed(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_mean_the_same_become_the_same() {
        for (path, wanted) in [
            ("/", Some("/")),
            ("*", Some("*")),
            ("/a/b", Some("/a/b")),
            ("/a/b/", Some("/a/b/")),
            ("//", Some("/")),
            ("//a///b//", Some("/a/b/")),
            ("/./a/.", Some("/a/")),
            ("/a/../b", Some("/b")),
            ("/a/b/..", Some("/a/")),
            ("/a/%2e%2E/b", Some("/b")),
            ("/a/.%2e/b", Some("/b")),
            ("/a/...", Some("/a/...")),
            ("/.a/b%2ec", Some("/.a/b.c")),
            ("/%20/%2f", Some("/%20/%2f")),
            ("/..", None),
            ("/a/../../b", None),
            ("/%2e%2e/etc", None),
        ] {
            assert_eq!(normal(path).as_deref(), wanted, "{path}");
        }
    }
}
