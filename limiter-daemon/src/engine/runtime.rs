//! Settings that may be changed while running: percentages of requests, by Envoy's names.
//!
//! Two layers: what the policy files say, and over it what was said by the admin API, until that is
//! cleared. Who goes by a setting holds its cell, so that looking at it costs one load.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::policy::plan::runtime::{self, check_name};

/// Settings that the admin API may change at once.
pub const MAX_CHANGED: usize = 256;
/// Of what nobody says anything about.
const DEFAULT: u8 = 100;

/// A percentage that may change at any time.
#[derive(Debug)]
pub struct Percent(AtomicU8);

impl Percent {
    /// Whether it takes a request, for which `random` was drawn, evenly spread.
    #[must_use]
    pub fn takes(&self, random: u64) -> bool {
        random % 100 < u64::from(self.0.load(Ordering::Relaxed))
    }
}

/// All settings.
#[derive(Debug, Default)]
pub struct Runtime(Mutex<Layers>);

#[derive(Debug, Default)]
struct Layers {
    file: BTreeMap<String, u8>,
    admin: BTreeMap<String, u8>,
    cells: BTreeMap<String, Weak<Percent>>,
}

/// A setting, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    /// In force.
    pub percent: u8,
    pub file: Option<u8>,
    pub admin: Option<u8>,
}

/// Why a setting is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("{0}; {names}", names = runtime::NAMES)]
    Unknown(String),
    #[error("`{0}` is no percentage: write 0 to 100, or nothing to clear it")]
    Value(String),
    #[error("{MAX_CHANGED} settings are changed already; clear some")]
    Full,
}

impl Runtime {
    fn layers(&self) -> MutexGuard<'_, Layers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cell of the setting `name`.
    #[must_use]
    pub fn cell(&self, name: &str) -> Arc<Percent> {
        let mut layers = self.layers();
        if let Some(living) = layers.cells.get(name).and_then(Weak::upgrade) {
            return living;
        }
        let cell = Arc::new(Percent(AtomicU8::new(layers.value(name))));
        layers.cells.retain(|_, cell| cell.strong_count() > 0);
        layers.cells.insert(name.to_owned(), Arc::downgrade(&cell));
        cell
    }

    /// Puts what the files say in force.
    pub fn follow(&self, file: &BTreeMap<String, u8>) {
        let mut layers = self.layers();
        layers.file.clone_from(file);
        layers.apply();
    }

    /// Changes settings, all or none: to a percentage, or (an empty text) back to what the files say.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed then.
    pub fn change(&self, changes: &[(String, String)]) -> Result<(), ChangeError> {
        let mut layers = self.layers();
        let mut admin = layers.admin.clone();
        for (name, value) in changes {
            check_name(name).map_err(ChangeError::Unknown)?;
            if value.is_empty() {
                admin.remove(name);
                continue;
            }
            let percent = value.parse().ok().filter(|percent| *percent <= 100);
            let percent = percent.ok_or_else(|| {
                let shown = value.chars().filter(|c| !c.is_control()).take(32);
                ChangeError::Value(shown.collect())
            })?;
            admin.insert(name.clone(), percent);
        }
        if admin.len() > MAX_CHANGED {
            return Err(ChangeError::Full);
        }
        layers.admin = admin;
        layers.apply();
        Ok(())
    }

    /// Every setting that somebody goes by or says something of, by name.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let layers = self.layers();
        let used = layers
            .cells
            .iter()
            .filter(|(_, cell)| cell.strong_count() > 0);
        let mut names: Vec<&String> = used.map(|(name, _)| name).collect();
        names.extend(layers.file.keys().chain(layers.admin.keys()));
        names.sort();
        names.dedup();
        let setting = |name: &String| Setting {
            name: name.clone(),
            percent: layers.value(name),
            file: layers.file.get(name).copied(),
            admin: layers.admin.get(name).copied(),
        };
        names.into_iter().map(setting).collect()
    }
}

impl Layers {
    fn value(&self, name: &str) -> u8 {
        let said = self.admin.get(name).or_else(|| self.file.get(name));
        said.copied().unwrap_or(DEFAULT)
    }

    fn apply(&self) {
        for (name, cell) in &self.cells {
            if let Some(cell) = cell.upgrade() {
                cell.0.store(self.value(name), Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::plan::runtime::{ENABLED, ENFORCING, of_key};

    fn file(pairs: &[(&str, u8)]) -> BTreeMap<String, u8> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, percent)| ((*name).to_owned(), *percent))
            .collect()
    }

    fn change(runtime: &Runtime, name: &str, value: &str) -> Result<(), ChangeError> {
        runtime.change(&[(name.to_owned(), value.to_owned())])
    }

    /// How many of a hundred evenly spread numbers it takes.
    fn share(percent: &Percent) -> usize {
        (0..100).filter(|random| percent.takes(*random)).count()
    }

    #[test]
    fn what_was_said_last_at_the_higher_layer_holds() {
        let runtime = Runtime::default();
        let cell = runtime.cell(ENABLED);
        assert_eq!(share(&cell), 100);
        runtime.follow(&file(&[(ENABLED, 30)]));
        assert_eq!(share(&cell), 30);
        change(&runtime, ENABLED, "0").unwrap();
        assert_eq!(share(&cell), 0);
        runtime.follow(&file(&[(ENABLED, 50)]));
        assert_eq!(share(&cell), 0, "the admin API wins until it is cleared");
        change(&runtime, ENABLED, "").unwrap();
        assert_eq!(share(&cell), 50);
        runtime.follow(&BTreeMap::new());
        assert_eq!(share(&cell), 100);
    }

    #[test]
    fn cells_are_one_and_new_ones_know_what_was_said() {
        let runtime = Runtime::default();
        change(&runtime, &of_key("login"), "7").unwrap();
        let cell = runtime.cell(&of_key("login"));
        assert_eq!(share(&cell), 7);
        assert!(Arc::ptr_eq(&cell, &runtime.cell(&of_key("login"))));
    }

    #[test]
    fn changes_are_all_or_none() {
        let runtime = Runtime::default();
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let pairs = pairs.iter();
            pairs
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        let wrong = runtime.change(&pairs(&[(ENABLED, "5"), ("nonsense", "5")]));
        assert!(matches!(wrong, Err(ChangeError::Unknown(_))));
        for value in ["101", "-1", "50%", "1.5", "256"] {
            let wrong = runtime.change(&pairs(&[(ENABLED, "5"), (ENFORCING, value)]));
            assert_eq!(wrong, Err(ChangeError::Value(value.to_owned())));
        }
        assert_eq!(runtime.settings(), []);
    }

    #[test]
    fn settings_are_bounded_and_told() {
        let runtime = Runtime::default();
        for n in 0..MAX_CHANGED {
            change(&runtime, &of_key(&n.to_string()), "1").unwrap();
        }
        assert_eq!(change(&runtime, ENABLED, "1"), Err(ChangeError::Full));
        let all: Vec<_> = (0..MAX_CHANGED)
            .map(|n| (of_key(&n.to_string()), String::new()))
            .collect();
        runtime.change(&all).unwrap();
        let _used = runtime.cell(ENFORCING);
        runtime.follow(&file(&[(ENABLED, 9)]));
        let told = runtime.settings();
        let names: Vec<_> = told
            .iter()
            .map(|one| (one.name.as_str(), one.percent))
            .collect();
        assert_eq!(names, [(ENABLED, 9), (ENFORCING, 100)]);
        assert_eq!((told[0].file, told[0].admin), (Some(9), None));
    }
}
