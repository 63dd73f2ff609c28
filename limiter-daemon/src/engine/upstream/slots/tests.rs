//! Slots, and people who wait for them.

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::engine::upstream::Resource;

/// Who was granted what.
type Granted = Arc<Mutex<Vec<(usize, Slot<Person>)>>>;

/// Keeps what it is granted where the test finds it.
#[derive(Clone, Debug)]
struct Person {
    name: usize,
    gone: Arc<AtomicBool>,
    granted: Granted,
}

impl Waiter for Person {
    fn grant(self, slot: Slot<Self>) -> Result<(), Slot<Self>> {
        if self.gone.load(Ordering::SeqCst) {
            return Err(slot);
        }
        let granted = Arc::clone(&self.granted);
        granted.lock().unwrap().push((self.name, slot));
        Ok(())
    }
}

struct Scene {
    slots: Arc<Slots<Person>>,
    breaker: Arc<Breaker>,
    granted: Granted,
}

impl Scene {
    fn new(max: u32) -> Self {
        let breaker = Arc::new(Breaker::default());
        Self {
            slots: Arc::new(Slots::new(Arc::clone(&breaker), max)),
            breaker,
            granted: Arc::default(),
        }
    }

    fn person(&self, name: usize) -> Person {
        Person {
            name,
            gone: Arc::default(),
            granted: Arc::clone(&self.granted),
        }
    }

    fn names(&self) -> Vec<usize> {
        let granted = self.granted.lock().unwrap();
        granted.iter().map(|(name, _)| *name).collect()
    }

    fn used(&self) -> u32 {
        self.breaker.used(Resource::Connections)
    }
}

#[test]
fn a_slot_that_is_given_back_goes_to_the_one_that_waits_longest() {
    let scene = Scene::new(1);
    let held = scene.slots.take().unwrap();
    assert!(scene.slots.take().is_none());
    for name in 0..3 {
        scene.slots.wait(scene.person(name));
    }
    drop(held);
    assert_eq!(scene.names(), [0]);
    scene.slots.max.store(2, Ordering::SeqCst);
    assert!(scene.slots.take().is_none(), "others wait");
    scene.slots.max.store(1, Ordering::SeqCst);
    let first = scene.granted.lock().unwrap().remove(0);
    drop(first);
    assert_eq!(scene.names(), [1]);
    assert_eq!(scene.used(), 1);
}

#[test]
fn who_gave_up_is_passed_over() {
    let scene = Scene::new(1);
    let held = scene.slots.take().unwrap();
    let people: Vec<_> = (0..3).map(|name| scene.person(name)).collect();
    for person in &people {
        scene.slots.wait(person.clone());
    }
    people[0].gone.store(true, Ordering::SeqCst);
    people[1].gone.store(true, Ordering::SeqCst);
    drop(held);
    assert_eq!(scene.names(), [2]);
    let last = scene.granted.lock().unwrap().remove(0);
    drop(last);
    assert_eq!(scene.used(), 0);
    assert!(!scene.slots.has_waiting());
}

#[test]
fn a_queue_of_people_who_are_gone_is_no_deep_recursion() {
    let scene = Scene::new(1);
    let held = scene.slots.take().unwrap();
    for name in 0..200_000 {
        let person = scene.person(name);
        person.gone.store(true, Ordering::SeqCst);
        scene.slots.wait(person);
    }
    drop(held);
    assert_eq!((scene.used(), scene.slots.has_waiting()), (0, false));
}

#[test]
fn a_lower_limit_is_reached_and_a_higher_one_is_used_at_once() {
    let scene = Scene::new(2);
    let (first, second) = (scene.slots.take().unwrap(), scene.slots.take().unwrap());
    scene.slots.wait(scene.person(0));
    scene.slots.set_max(1);
    drop(first);
    assert_eq!((scene.names(), scene.used()), (vec![], 1));
    scene.slots.wait(scene.person(1));
    scene.slots.set_max(3);
    assert_eq!((scene.names(), scene.used()), (vec![0, 1], 3));
    drop(second);
}

#[test]
fn what_came_free_before_one_waits_is_not_lost() {
    let scene = Scene::new(1);
    drop(scene.slots.take().unwrap());
    scene.slots.wait(scene.person(0));
    scene.slots.serve();
    assert_eq!(scene.names(), [0]);
}

#[test]
fn an_endpoint_has_so_many_of_them() {
    let scene = Scene::new(9);
    let connections = Arc::new(AtomicU32::new(0));
    let first = scene.slots.take().unwrap().at(&connections, 1).unwrap();
    let second = scene.slots.take().unwrap().at(&connections, 1);
    let second = second.unwrap_err();
    drop(first);
    assert!(second.at(&connections, 1).is_ok());
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    assert_eq!(scene.used(), 0);
}

proptest! {
    /// People come, give up and give back in any order: never more slots than may be, none lost, and
    /// those that stay are served in the order in which they came.
    #[test]
    fn slots_never_leak(steps in prop::collection::vec((0..4u8, any::<prop::sample::Index>()), 0..200)) {
        let scene = Scene::new(3);
        let mut held: Vec<Slot<Person>> = Vec::new();
        let mut people: Vec<Person> = Vec::new();
        let mut served = Vec::new();
        for (what, which) in steps {
            match what {
                0 => match scene.slots.take() {
                    Some(slot) => held.push(slot),
                    None => {
                        let person = scene.person(people.len());
                        scene.slots.wait(person.clone());
                        scene.slots.serve();
                        people.push(person);
                    }
                },
                1 if !people.is_empty() => {
                    people[which.index(people.len())].gone.store(true, Ordering::SeqCst);
                }
                _ if !held.is_empty() => drop(held.swap_remove(which.index(held.len()))),
                _ => {}
            }
            for (name, slot) in scene.granted.lock().unwrap().drain(..) {
                served.push(name);
                held.push(slot);
            }
            prop_assert_eq!(scene.used() as usize, held.len());
            prop_assert!(held.len() <= 3);
        }
        prop_assert!(served.is_sorted());
        drop(held);
        let mut rest: Vec<_> = scene.granted.lock().unwrap().drain(..).collect();
        while !rest.is_empty() {
            drop(rest);
            rest = scene.granted.lock().unwrap().drain(..).collect();
        }
        prop_assert_eq!(scene.used(), 0);
        prop_assert!(!scene.slots.has_waiting());
    }
}
