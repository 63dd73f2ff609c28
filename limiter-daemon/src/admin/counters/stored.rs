//! Counters of the store that nodes share.

use http::StatusCode;

use super::{Admin, Counted, CounterView, CountersView, Refused, Wanted, bad};
use crate::engine::counters::StoredBucket;
use crate::engine::time::Now;
use crate::global::counters::{Count, CountersError};

/// What is said after a reset: other nodes may know of a denial.
const LATER: &str =
    "other nodes may deny it for up to a second more, and what they hold of leases is theirs";

impl Counted {
    /// What keys of limits begin with: the hash tag is behind the prefix.
    fn begins(&self) -> String {
        format!("{}{{", self.prefix)
    }

    /// Whether it is the key of a limit: what the fleet keeps under the same prefix must stay.
    fn has(&self, key: &str) -> bool {
        key.starts_with(&self.begins()) && is_count(key)
    }

    /// The value, and the time of the server that has it, or would.
    async fn read(&self, key: &str) -> Result<(Option<String>, u64), Refused> {
        let mut nothing = (None, 0);
        for store in &self.stores {
            let read = store.read(key).await.map_err(away)?;
            if read.0.is_some() {
                return Ok(read);
            }
            nothing = read;
        }
        Ok(nothing)
    }

    /// Whether anything was forgotten.
    async fn forget(&self, key: &str) -> Result<bool, Refused> {
        let mut any = false;
        for store in &self.stores {
            any |= store.forget(key).await.map_err(away)?;
        }
        if let Some(memory) = &self.memory {
            memory.forget(key);
        }
        Ok(any)
    }
}

/// Behind the hash tag, keys of limits say how they count.
fn is_count(key: &str) -> bool {
    let behind = key.split_once('}').map(|(_, behind)| behind);
    behind.is_some_and(|behind| behind.contains('#'))
}

fn away(error: CountersError) -> Refused {
    (StatusCode::BAD_GATEWAY, error.to_string())
}

impl Admin {
    pub(super) async fn list_stored(
        &self,
        wanted: &Wanted<'_>,
        view: &mut CountersView,
    ) -> Result<(), Refused> {
        let Some(counted) = &self.counted else {
            if wanted.place.is_some() {
                view.notes.push(NO_STORE.to_owned());
            }
            return Ok(());
        };
        let begins = counted.begins();
        let asked = wanted.prefix.strip_prefix("store:").unwrap_or("");
        let prefix = if asked.starts_with(&begins) {
            asked
        } else if begins.starts_with(asked) {
            &begins
        } else {
            return Ok(());
        };
        for store in &counted.stores {
            let listed = store
                .list(prefix, is_count, wanted.most)
                .await
                .map_err(away)?;
            view.more |= listed.more;
            view.counters.extend(listed.counts.into_iter().map(stored));
        }
        Ok(())
    }

    /// A count by its key.
    pub(super) async fn one_stored(&self, key: &str, reset: bool) -> Result<CountersView, Refused> {
        let counted = self.counted()?;
        if !counted.has(key) {
            let begins = counted.begins();
            return Err(bad(format!(
                "keys of limits begin with {begins} and have a # behind the brace"
            )));
        }
        let none = || {
            let why = format!("the store has nothing under {key}: the bucket is full");
            (StatusCode::NOT_FOUND, why)
        };
        if reset {
            if !counted.forget(key).await? {
                return Err(none());
            }
            return Ok(CountersView {
                notes: vec![LATER.to_owned()],
                ..CountersView::default()
            });
        }
        let (value, _) = counted.read(key).await?;
        let count = Count {
            key: key.to_owned(),
            value: value.ok_or_else(none)?,
            expires_ms: None,
        };
        Ok(CountersView {
            counters: vec![stored(count)],
            ..CountersView::default()
        })
    }

    /// The bucket of a limit that the store counts.
    pub(super) async fn one_of_store(
        &self,
        name: &str,
        bucket: &StoredBucket,
        reset: bool,
    ) -> Result<CountersView, Refused> {
        let counted = self.counted()?;
        if reset {
            counted.forget(&bucket.key).await?;
        }
        let (value, unix) = counted.read(&bucket.key).await?;
        let now = Now { mono: unix, unix };
        let state = bucket.read(value.as_deref(), now);
        let notes = match (reset, state) {
            (true, _) => vec![LATER.to_owned()],
            (false, None) => vec!["the value in the store is of another limit".to_owned()],
            (false, Some(_)) => Vec::new(),
        };
        Ok(CountersView {
            counters: vec![CounterView {
                name: name.to_owned(),
                place: "store".to_owned(),
                buckets: "one".to_owned(),
                capacity: Some(bucket.capacity()),
                state,
                value: Some(format!("{} = {}", bucket.key, value.unwrap_or_default())),
                ..CounterView::default()
            }],
            notes,
            more: false,
        })
    }

    fn counted(&self) -> Result<&Counted, Refused> {
        let counted = self.counted.as_ref();
        counted.ok_or_else(|| (StatusCode::NOT_FOUND, NO_STORE.to_owned()))
    }
}

const NO_STORE: &str = "there is no store that nodes share: name one in rateLimit of the LimiterConfig or EnvoyGateway";

fn stored(count: Count) -> CounterView {
    CounterView {
        name: format!("store:{}", count.key),
        place: "store".to_owned(),
        buckets: "one".to_owned(),
        value: Some(count.value),
        expires_ms: count.expires_ms,
        ..CounterView::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counts_can_be_read_and_forgotten() {
        let counted = Counted {
            stores: Vec::new(),
            prefix: "limiterd:".to_owned(),
            memory: None,
        };
        assert!(counted.has("limiterd:{d/p@d/r}d/p/rule/0@d/r+#bucket:"));
        assert!(counted.has("limiterd:{fleet}fleet.user#fixed/60:00ff"));
        for other in [
            "limiterd:{fleet}epoch",
            "limiterd:{fleet}blocks",
            "other:{d/p}d/p/rule/0@d/r+#bucket:",
            "limiterd:x#y",
        ] {
            assert!(!counted.has(other), "{other}");
        }
    }
}
