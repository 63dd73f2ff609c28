//! The URL of a store.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::policy::plan::{Password, StoreAddress, StoreHost};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const SHAPE: &str = "write `host:port`, `redis://user:password@host:port/0`, `rediss://host:port`, \
                     `master,sentinel:port,sentinel:port`, `host:port,host:port` for a Cluster, or \
                     `unix:///path/of/socket`";

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) address: StoreAddress,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Password>,
    pub(crate) database: u32,
    pub(crate) tls: bool,
}

/// Takes a URL apart.
///
/// # Errors
/// What is wrong with it (without a word of it: it may hold a password), and what would be right.
pub(crate) fn parse(text: &str) -> Result<Url, (&'static str, &'static str)> {
    let mut url = Url {
        address: StoreAddress::Unix(PathBuf::new()),
        user: None,
        password: None,
        database: 0,
        tls: false,
    };
    if let Some(path) = text
        .strip_prefix("unix://")
        .or_else(|| text.starts_with('/').then_some(text))
    {
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(("the path of its socket is not absolute", SHAPE));
        }
        url.address = StoreAddress::Unix(PathBuf::from(path));
        return Ok(url);
    }
    let rest = match text.split_once("://") {
        None => text,
        Some(("redis" | "valkey", rest)) => rest,
        Some(("rediss" | "valkeys", rest)) => {
            url.tls = true;
            rest
        }
        Some(_) => return Err(("its scheme is none of a store", SHAPE)),
    };
    let (login, rest) = rest
        .rsplit_once('@')
        .map_or((None, rest), |(login, rest)| (Some(login), rest));
    if let Some(login) = login {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        url.user = decoded(user)?;
        url.password = decoded(password)?.map(Password);
        if url.user.is_some() && url.password.is_none() {
            return Err(("it has a user and no password", SHAPE));
        }
    }
    let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
    if !database.is_empty() {
        let number = database.parse();
        url.database = number.map_err(|_error| ("its database is no number", SHAPE))?;
    }
    url.address = address(place)?;
    if url.database != 0 && matches!(url.address, StoreAddress::Cluster(_)) {
        return Err((
            "a Cluster has one database, which is number 0",
            "remove the number at its end",
        ));
    }
    Ok(url)
}

fn decoded(part: &str) -> Result<Option<String>, (&'static str, &'static str)> {
    let text = percent_decode_str(part)
        .decode_utf8()
        .map_err(|_error| ("its user or password is no UTF-8", SHAPE))?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

/// A host; or the name of a master (which has no port) and its Sentinels; or hosts of a Cluster.
fn address(place: &str) -> Result<StoreAddress, (&'static str, &'static str)> {
    let no_host = ("it has no host, or a port that is none", SHAPE);
    let Some((first, others)) = place.split_once(',') else {
        let host = host(place, PORT).ok_or(no_host)?;
        return Ok(StoreAddress::Tcp(host));
    };
    let hosts = |list: &str, port| -> Option<Vec<_>> {
        list.split(',').map(|one| host(one.trim(), port)).collect()
    };
    if first.contains(':') {
        let hosts = hosts(place, PORT).ok_or(no_host)?;
        return Ok(StoreAddress::Cluster(hosts));
    }
    Ok(StoreAddress::Sentinel {
        master: host(first, PORT).ok_or(no_host)?.host,
        sentinels: hosts(others, SENTINEL_PORT).ok_or(no_host)?,
        login: None,
    })
}

fn host(place: &str, default_port: u16) -> Option<StoreHost> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':'))
        }
        None => place
            .split_once(':')
            .map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(default_port), |port| {
        port.parse().ok().filter(|port| *port != 0)
    })?;
    let in_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    (!host.is_empty() && host.chars().all(in_names)).then(|| StoreHost {
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Url {
        Url {
            address: StoreAddress::Tcp(StoreHost {
                host: host.to_owned(),
                port,
            }),
            user: None,
            password: None,
            database: 0,
            tls: false,
        }
    }

    #[test]
    fn urls() {
        let good = [
            (
                "redis.redis-system.svc:6379",
                tcp("redis.redis-system.svc", 6379),
            ),
            ("redis", tcp("redis", 6379)),
            ("[::1]:7000", tcp("::1", 7000)),
            (
                "rediss://me:p%40ss@store:6380/3",
                Url {
                    user: Some("me".to_owned()),
                    password: Some(Password("p@ss".to_owned())),
                    database: 3,
                    tls: true,
                    ..tcp("store", 6380)
                },
            ),
            (
                "redis://:secret@store",
                Url {
                    password: Some(Password("secret".to_owned())),
                    ..tcp("store", 6379)
                },
            ),
            (
                "redis://:secret@shop,one:7000,two",
                Url {
                    address: StoreAddress::Sentinel {
                        master: "shop".to_owned(),
                        sentinels: [("one", 7000), ("two", 26379)]
                            .map(|(host, port)| StoreHost {
                                host: host.to_owned(),
                                port,
                            })
                            .into(),
                        login: None,
                    },
                    password: Some(Password("secret".to_owned())),
                    ..tcp("", 0)
                },
            ),
            (
                "rediss://me:secret@one:7000, [::1]:7001,two",
                Url {
                    address: StoreAddress::Cluster(
                        [("one", 7000), ("::1", 7001), ("two", 6379)]
                            .map(|(host, port)| StoreHost {
                                host: host.to_owned(),
                                port,
                            })
                            .into(),
                    ),
                    user: Some("me".to_owned()),
                    password: Some(Password("secret".to_owned())),
                    tls: true,
                    ..tcp("", 0)
                },
            ),
            (
                "unix:///run/redis.sock",
                Url {
                    address: StoreAddress::Unix(PathBuf::from("/run/redis.sock")),
                    ..tcp("", 0)
                },
            ),
        ];
        for (text, wanted) in good {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
        for bad in [
            "",
            ":6379",
            "store:0",
            "store:port",
            "http://store",
            "redis://me@store",
            "a:1,",
            "a:1,b:0",
            "a:1,b:2/3",
            "redis://store/one",
            "unix://run",
            "shop,",
            "st ore",
            "[::1",
        ] {
            let (problem, _remedy) = parse(bad).unwrap_err();
            assert!(!problem.is_empty(), "{bad}");
        }
    }
}
