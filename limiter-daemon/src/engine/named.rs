//! Values that are found again by name for as long as somebody holds them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Entries that may be dead before they are looked for, besides twice as many as live.
const SLACK: usize = 64;

/// What is in use, by name. It holds nothing alive itself.
#[derive(Debug)]
pub(super) struct Named<T>(Mutex<Entries<T>>);

#[derive(Debug)]
struct Entries<T> {
    by_name: HashMap<String, Weak<T>>,
    /// With so many entries, the dead ones are swept.
    sweep_at: usize,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Mutex::new(Entries {
            by_name: HashMap::new(),
            sweep_at: SLACK,
        }))
    }
}

impl<T> Named<T> {
    fn entries(&self) -> MutexGuard<'_, Entries<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The living value under `name`, or a new one.
    pub(super) fn get(&self, name: String, make: impl FnOnce() -> T) -> Arc<T> {
        let mut entries = self.entries();
        if let Some(living) = entries.by_name.get(&name).and_then(Weak::upgrade) {
            return living;
        }
        if entries.by_name.len() >= entries.sweep_at {
            entries.sweep();
        }
        let made = Arc::new(make());
        entries.by_name.insert(name, Arc::downgrade(&made));
        made
    }

    /// The living values, in the order of their names.
    pub(super) fn living(&self) -> Vec<Arc<T>> {
        let mut entries = self.entries();
        entries.sweep();
        let mut all: Vec<_> = entries
            .by_name
            .iter()
            .filter_map(|(name, weak)| Some((name.clone(), weak.upgrade()?)))
            .collect();
        drop(entries);
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.into_iter().map(|(_, value)| value).collect()
    }
}

impl<T> Entries<T> {
    fn sweep(&mut self) {
        self.by_name.retain(|_, weak| weak.strong_count() > 0);
        self.sweep_at = 2 * self.by_name.len() + SLACK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_found_again_and_the_dead_are_not_kept() {
        let named = Named::default();
        let kept = named.get("b".into(), || 1);
        assert!(Arc::ptr_eq(&kept, &named.get("b".into(), || 2)));
        let also = named.get("a".into(), || 3);
        assert_eq!(named.living(), [Arc::clone(&also), Arc::clone(&kept)]);
        for n in 0..10_000 {
            drop(named.get(n.to_string(), || n));
        }
        assert!(named.entries().by_name.len() <= 2 * 2 + SLACK);
        drop(also);
        assert_eq!(*named.get("a".into(), || 4), 4);
        assert_eq!(named.living(), [kept]);
    }
}
