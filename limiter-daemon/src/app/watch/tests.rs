//! Which changes are seen, on real directories.

use std::os::unix::fs::symlink;

use super::*;

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("limiterd-watch-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("policy")).unwrap();
        Self(path)
    }

    fn policy(&self) -> PathBuf {
        self.0.join("policy")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// For what comes at once on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// Events are in the queue when the call that causes them returns, so none is waited for.
#[track_caller]
fn seen(watch: &mut Watch) {
    assert!(watch.pending().unwrap());
}

#[track_caller]
fn not_seen(watch: &mut Watch) {
    assert!(!watch.pending().unwrap());
}

#[test]
fn files_written_renamed_over_and_removed_are_seen() {
    run(async {
        let scratch = Scratch::new("files");
        let dir = scratch.policy();
        let mut watch = Watch::start(&dir).unwrap();
        fs::write(dir.join("a.yaml"), "a").unwrap();
        seen(&mut watch);

        // An editor's way: hidden files come and go, and then one takes the place of the file.
        fs::write(dir.join(".a.yaml.swp"), "b").unwrap();
        not_seen(&mut watch);
        fs::rename(dir.join(".a.yaml.swp"), dir.join("a.yaml")).unwrap();
        seen(&mut watch);

        // A file that is still being written is not looked at.
        let mut open = fs::File::create(dir.join("deny.txt")).unwrap();
        not_seen(&mut watch);
        io::Write::write_all(&mut open, b"192.0.2.1\n").unwrap();
        not_seen(&mut watch);
        drop(open);
        seen(&mut watch);

        fs::remove_file(dir.join("a.yaml")).unwrap();
        seen(&mut watch);
    });
}

#[test]
fn the_swap_of_a_config_map_is_seen() {
    run(async {
        let scratch = Scratch::new("configmap");
        let dir = scratch.policy();
        let version = |name: &str, text: &str| {
            fs::create_dir(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("a.yaml"), text).unwrap();
        };
        version("..1", "one");
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
        let before = fingerprint(&dir);
        let mut watch = Watch::start(&dir).unwrap();

        version("..2", "two");
        symlink("..2", dir.join("..data_tmp")).unwrap();
        not_seen(&mut watch);
        assert_eq!(fingerprint(&dir), before);
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        seen(&mut watch);
        let after = fingerprint(&dir);
        assert_ne!(after, before);

        // The end of the version before changes nothing any more.
        fs::remove_dir_all(dir.join("..1")).unwrap();
        not_seen(&mut watch);
        assert_eq!(fingerprint(&dir), after);
    });
}

#[test]
fn a_directory_that_vanishes_and_returns_is_watched_again() {
    run(async {
        let scratch = Scratch::new("vanish");
        let dir = scratch.policy();
        let mut watch = Watch::start(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
        seen(&mut watch);
        fs::create_dir(&dir).unwrap();
        seen(&mut watch);
        fs::write(dir.join("a.yaml"), "a").unwrap();
        seen(&mut watch);

        // With its parent.
        fs::remove_dir_all(&scratch.0).unwrap();
        seen(&mut watch);
        fs::create_dir_all(&dir).unwrap();
        seen(&mut watch);
        fs::write(dir.join("b.yaml"), "b").unwrap();
        seen(&mut watch);
    });
}

#[test]
fn a_symlink_to_a_directory_that_is_swapped_is_seen() {
    run(async {
        let scratch = Scratch::new("symlink");
        let [old, new, link] = ["old", "new", "link"].map(|name| scratch.0.join(name));
        fs::create_dir(&old).unwrap();
        fs::create_dir(&new).unwrap();
        symlink("old", &link).unwrap();
        let mut watch = Watch::start(&link).unwrap();
        symlink("new", scratch.0.join("next")).unwrap();
        not_seen(&mut watch);
        fs::rename(scratch.0.join("next"), &link).unwrap();
        seen(&mut watch);
        fs::write(old.join("a.yaml"), "a").unwrap();
        not_seen(&mut watch);
        fs::write(new.join("a.yaml"), "a").unwrap();
        seen(&mut watch);
    });
}

#[test]
fn a_single_file_is_watched_without_its_neighbours() {
    run(async {
        let scratch = Scratch::new("single");
        let file = scratch.policy().join("a.yaml");
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::start(&file).unwrap();
        fs::write(scratch.policy().join("b.yaml"), "b").unwrap();
        not_seen(&mut watch);
        let before = fingerprint(&file);
        fs::write(&file, "b").unwrap();
        seen(&mut watch);
        assert_ne!(fingerprint(&file), before);
    });
}

#[test]
fn events_in_a_row_are_one_change() {
    run(async {
        let scratch = Scratch::new("row");
        let dir = scratch.policy();
        let watch = Watch::start(&dir).unwrap();
        let changed = Notify::new();
        for n in 0..5 {
            fs::write(dir.join(format!("{n}.yaml")), "a").unwrap();
        }
        let mut run = std::pin::pin!(watch.run(&changed));
        let next = async {
            tokio::select! {
                _ = &mut run => panic!("the watch ended"),
                () = changed.notified() => {}
            }
        };
        timeout(PATIENCE, next).await.unwrap();
        // All five were taken together: nothing is left to tell of.
        let more = async {
            tokio::select! {
                _ = &mut run => panic!("the watch ended"),
                () = changed.notified() => {}
            }
        };
        assert!(timeout(QUIET * 3, more).await.is_err());
    });
}
