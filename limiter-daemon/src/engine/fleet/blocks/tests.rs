//! The table of blocks, with times that are given and a kernel that is a map.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::super::{Pending, Remote, ServerClock, StreamId};
use super::*;

const MS: u64 = MILLISECOND;
const SEC: u64 = 1_000 * MS;
/// What the server's clock says when this node's says [`BEGIN`].
const SERVER: u64 = 1_700_000_000_000;
const BEGIN: u64 = 500 * SEC;

/// As `l4::sentences`: narrower sentences that end before a wider one are not kept.
#[derive(Debug, Default)]
struct Kernel {
    served: Mutex<BTreeMap<IpNet, (u64, Origin)>>,
    notes: Mutex<Vec<(Event, IpNet)>>,
    /// None is inside another.
    flat: bool,
}

impl Gate for Kernel {
    fn block(&self, sentence: Sentence) -> Result<(), GateError> {
        let Sentence { net, until, origin } = sentence;
        let mut served = self.served.lock().unwrap();
        let wider = |(other, (end, _)): (&IpNet, &(u64, Origin))| {
            *other != net && other.contains(&net) && *end >= until
        };
        if !self.flat && served.iter().any(wider) {
            return Ok(());
        }
        let until = served.get(&net).map_or(until, |(end, _)| until.max(*end));
        if !self.flat {
            served.retain(|other, (end, _)| !net.contains(other) || *end > until);
        }
        served.insert(net, (until, origin));
        Ok(())
    }

    fn lift(&self, net: IpNet) -> Result<(), GateError> {
        self.served.lock().unwrap().remove(&net);
        Ok(())
    }

    fn served(&self) -> Vec<Sentence> {
        let served = self.served.lock().unwrap();
        let sentence = |(net, (until, origin)): (&IpNet, &(u64, Origin))| Sentence {
            net: *net,
            until: *until,
            origin: *origin,
        };
        served.iter().map(sentence).collect()
    }

    fn note(&self, event: Event, Told { net, .. }: Told<'_>) {
        self.notes.lock().unwrap().push((event, net));
    }
}

fn at(seconds: u64) -> Now {
    Now {
        mono: BEGIN + seconds * SEC,
        unix: 42 * SEC,
    }
}

const CLOCK: ServerClock = ServerClock {
    server_ms: SERVER,
    mono: BEGIN,
};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn cause(why: &str) -> Cause {
    Cause {
        by: "a".to_owned(),
        why: why.to_owned(),
        rule: "manual".to_owned(),
    }
}

/// A block that the store has until so many seconds after the beginning.
fn remote(until: u64) -> Remote {
    Remote {
        since: SERVER,
        until: SERVER + until * 1_000,
        cause: cause("remote"),
    }
}

fn new() -> (Arc<Kernel>, Blocks) {
    let kernel = Arc::new(Kernel::default());
    let gate: Arc<dyn Gate> = Arc::<Kernel>::clone(&kernel);
    (kernel, Blocks::adopt(gate, true, at(0)))
}

impl Kernel {
    fn nets(&self) -> Vec<String> {
        let served = self.served.lock().unwrap();
        served.keys().map(ToString::to_string).collect()
    }

    fn of(&self, text: &str) -> Option<(u64, Origin)> {
        let served = self.served.lock().unwrap();
        let found = served.get(&net(text)).copied();
        found.map(|(until, origin)| ((until - BEGIN) / SEC, origin))
    }
}

fn pass(blocks: &Blocks, text: &str, seconds: u64, scope: Scope) {
    let passed = blocks.pass(net(text), seconds * SEC, scope, cause("here"), at(0));
    passed.unwrap();
}

fn resync(blocks: &Blocks, all: &BTreeMap<IpNet, Remote>, epoch: &str, last: StreamId, now: Now) {
    let mut steps = blocks.resync(all, epoch, last);
    while steps.step(1, &CLOCK, now) {}
}

fn id(number: u64) -> StreamId {
    StreamId(number, 0)
}

#[test]
fn a_block_of_the_fleet_is_in_force_at_once_and_pending_until_it_is_sent() {
    let (kernel, blocks) = new();
    pass(&blocks, "192.0.2.1/32", 60, Scope::Fleet);
    pass(&blocks, "192.0.2.9/32", 60, Scope::Node);
    assert_eq!(kernel.of("192.0.2.1/32"), Some((60, Origin::Unsent)));
    assert_eq!(kernel.of("192.0.2.9/32"), Some((60, Origin::Node)));
    let pending = blocks.pending(10, at(20));
    let [
        Pending::Block {
            net: which,
            left,
            age,
            mark,
            ..
        },
    ] = pending.as_slice()
    else {
        panic!("{pending:?}");
    };
    assert_eq!((*which, *left, *age), (net("192.0.2.1/32"), 40_000, 20_000));
    blocks.sent(*which, *mark, Some((&remote(60), id(7))), &CLOCK);
    assert_eq!(blocks.pending(10, at(20)), []);
    assert_eq!(kernel.of("192.0.2.1/32"), Some((60, Origin::Fleet)));
    // What the store tells of it then is nothing new.
    let before = kernel.notes.lock().unwrap().len();
    blocks.blocked(net("192.0.2.1/32"), &remote(60), id(7), &CLOCK, at(20));
    assert_eq!(kernel.notes.lock().unwrap().len(), before);
    assert_eq!(blocks.numbers(), (1, 1));
}

#[test]
fn what_is_left_goes_by_the_servers_clock() {
    let (kernel, blocks) = new();
    // The server is an hour ahead of this node's wall clock; nobody asks that one.
    blocks.blocked(net("192.0.2.1/32"), &remote(60), id(1), &CLOCK, at(10));
    assert_eq!(kernel.of("192.0.2.1/32"), Some((60, Origin::Fleet)));
    let told = blocks.list(at(10)).remove(0);
    assert_eq!(told.left, 50 * SEC);
    assert_eq!((told.since, told.until), (Some(SERVER), SERVER + 60_000));
    // Over already.
    blocks.blocked(net("192.0.2.2/32"), &remote(5), id(2), &CLOCK, at(10));
    assert_eq!(kernel.nets(), ["192.0.2.1/32"]);
    blocks.expire(at(60));
    assert_eq!(blocks.list(at(60)), []);
}

#[test]
fn a_longer_block_stays_and_the_same_twice_is_one() {
    let (kernel, blocks) = new();
    pass(&blocks, "192.0.2.1/32", 60, Scope::Node);
    pass(&blocks, "192.0.2.1/32", 30, Scope::Node);
    assert_eq!(kernel.of("192.0.2.1/32"), Some((60, Origin::Node)));
    pass(&blocks, "192.0.2.1/32", 90, Scope::Node);
    assert_eq!(kernel.of("192.0.2.1/32"), Some((90, Origin::Node)));
    assert_eq!(blocks.numbers(), (1, 0));
}

#[test]
fn lifting_puts_back_what_was_hidden() {
    let (kernel, blocks) = new();
    pass(&blocks, "192.0.2.1/32", 30, Scope::Node);
    pass(&blocks, "192.0.2.128/25", 20, Scope::Fleet);
    pass(&blocks, "198.51.100.1/32", 20, Scope::Fleet);
    blocks.blocked(net("192.0.2.0/24"), &remote(60), id(1), &CLOCK, at(0));
    assert_eq!(kernel.nets(), ["192.0.2.0/24", "198.51.100.1/32"]);
    blocks.lifted(net("192.0.2.0/24"), &cause("enough"), id(2));
    let wanted = ["192.0.2.1/32", "192.0.2.128/25", "198.51.100.1/32"];
    assert_eq!(kernel.nets(), wanted);
    assert_eq!(kernel.of("192.0.2.1/32"), Some((30, Origin::Node)));
    assert_eq!(kernel.of("192.0.2.128/25"), Some((20, Origin::Unsent)));
}

#[test]
fn a_network_that_both_block_is_served_as_long_as_one_of_them_does() {
    let (kernel, blocks) = new();
    pass(&blocks, "192.0.2.1/32", 30, Scope::Node);
    blocks.blocked(net("192.0.2.1/32"), &remote(60), id(1), &CLOCK, at(0));
    assert_eq!(kernel.of("192.0.2.1/32"), Some((60, Origin::Fleet)));
    blocks.lifted(net("192.0.2.1/32"), &cause("enough"), id(2));
    assert_eq!(kernel.of("192.0.2.1/32"), Some((30, Origin::Node)));
    let not = blocks.lift(net("192.0.2.1/32"), Some(Scope::Fleet), &cause(""), at(0));
    assert_eq!(not, Err(BlockError::NotBlocked(net("192.0.2.1/32"))));
    let lifted = blocks.lift(net("192.0.2.1/32"), None, &cause(""), at(0));
    assert_eq!(lifted, Ok(()));
    assert!(kernel.nets().is_empty());
    assert_eq!(
        blocks.pending(10, at(0)),
        [],
        "the fleet knows nothing of it"
    );
}

#[test]
fn a_lift_is_pending_and_lifts_no_later_block() {
    let (kernel, blocks) = new();
    let one = net("192.0.2.1/32");
    blocks.blocked(one, &remote(60), id(1), &CLOCK, at(0));
    let of_the_fleet = blocks.lift(one, Some(Scope::Node), &cause(""), at(0));
    assert_eq!(of_the_fleet, Err(BlockError::OfTheFleet(one)));
    blocks.lift(one, None, &cause("mistake"), at(1)).unwrap();
    assert!(kernel.nets().is_empty());
    // The store still has it, and says so: it is about to be told.
    let all = BTreeMap::from([(one, remote(60))]);
    resync(&blocks, &all, "e", id(5), at(2));
    assert!(kernel.nets().is_empty());
    let until = Some(SERVER + 60_000);
    let by = cause("mistake");
    let wanted = Pending::Lift {
        net: one,
        until,
        by,
    };
    assert_eq!(blocks.pending(10, at(2)), [wanted]);
    // Another node blocks it for longer: that is another block.
    blocks.blocked(one, &remote(90), id(6), &CLOCK, at(3));
    assert_eq!(kernel.of("192.0.2.1/32"), Some((90, Origin::Fleet)));
    assert_eq!(blocks.pending(10, at(3)), []);
}

#[test]
fn an_event_from_before_changes_nothing() {
    let (kernel, blocks) = new();
    let one = net("192.0.2.1/32");
    pass(&blocks, "192.0.2.1/32", 60, Scope::Fleet);
    let [Pending::Block { mark, .. }] = blocks.pending(1, at(0))[..] else {
        panic!("it is pending");
    };
    blocks.sent(one, mark, Some((&remote(60), id(9))), &CLOCK);
    blocks.lifted(one, &cause("before"), id(8));
    assert_eq!(kernel.of("192.0.2.1/32"), Some((60, Origin::Fleet)));
    blocks.lifted(one, &cause("after"), id(10));
    assert!(kernel.nets().is_empty());
}

#[test]
fn a_node_that_was_away_becomes_what_the_store_has() {
    let (kernel, blocks) = new();
    resync(&blocks, &BTreeMap::new(), "e", id(1), at(0));
    for (text, number) in [
        ("192.0.2.1/32", 2),
        ("192.0.2.2/32", 3),
        ("192.0.2.3/32", 4),
    ] {
        blocks.blocked(net(text), &remote(60), id(number), &CLOCK, at(0));
        blocks.heard(id(number));
    }
    pass(&blocks, "192.0.2.4/32", 60, Scope::Fleet);
    // Meanwhile one was lifted, one made shorter, one came.
    let all = BTreeMap::from([
        (net("192.0.2.2/32"), remote(20)),
        (net("192.0.2.3/32"), remote(60)),
        (net("192.0.2.5/32"), remote(60)),
    ]);
    resync(&blocks, &all, "e", id(9), at(5));
    assert_eq!(kernel.of("192.0.2.1/32"), None);
    assert_eq!(kernel.of("192.0.2.2/32"), Some((20, Origin::Fleet)));
    assert_eq!(kernel.of("192.0.2.3/32"), Some((60, Origin::Fleet)));
    assert_eq!(kernel.of("192.0.2.4/32"), Some((60, Origin::Unsent)));
    assert_eq!(kernel.of("192.0.2.5/32"), Some((60, Origin::Fleet)));
    assert_eq!(blocks.position(), id(9));
}

#[test]
fn what_the_store_has_forgotten_is_told_again_and_not_lifted() {
    for (epoch, last) in [("another", id(0)), ("another", id(99)), ("e", id(2))] {
        let (kernel, blocks) = new();
        resync(&blocks, &BTreeMap::new(), "e", id(1), at(0));
        for (text, number) in [("192.0.2.1/32", 2), ("192.0.2.2/32", 3)] {
            blocks.blocked(net(text), &remote(60), id(number), &CLOCK, at(0));
            blocks.heard(id(number));
        }
        resync(&blocks, &BTreeMap::new(), epoch, last, at(5));
        let told: Vec<_> = blocks
            .pending(10, at(5))
            .into_iter()
            .map(|pending| match pending {
                Pending::Block { net, left, age, .. } => (net.to_string(), left, age),
                Pending::Lift { .. } => panic!("nothing was lifted"),
            })
            .collect();
        let both = [
            ("192.0.2.1/32".to_owned(), 55_000, 5_000),
            ("192.0.2.2/32".to_owned(), 55_000, 5_000),
        ];
        if epoch == "e" {
            // It went back to the second event: the block that the third told is not lifted.
            assert_eq!(told, both[1..]);
            assert_eq!(kernel.nets(), ["192.0.2.2/32"]);
        } else {
            assert_eq!(told, both);
            assert_eq!(kernel.nets(), ["192.0.2.1/32", "192.0.2.2/32"]);
        }
    }
}

#[test]
fn a_new_process_goes_on_with_what_is_in_the_kernel() {
    let kernel = Arc::new(Kernel::default());
    for (text, origin) in [
        ("192.0.2.1/32", Origin::Node),
        ("192.0.2.2/32", Origin::Fleet),
        ("192.0.2.3/32", Origin::Unsent),
        ("192.0.2.4/32", Origin::Fleet),
    ] {
        let until = BEGIN + 60 * SEC;
        let sentence = Sentence {
            net: net(text),
            until,
            origin,
        };
        kernel.block(sentence).unwrap();
    }
    let gate: Arc<dyn Gate> = Arc::<Kernel>::clone(&kernel);
    let blocks = Blocks::adopt(Arc::clone(&gate), true, at(10));
    assert_eq!(blocks.numbers(), (1, 3));
    // Of the fleet's, one was lifted while it was away.
    let all = BTreeMap::from([(net("192.0.2.2/32"), remote(60))]);
    resync(&blocks, &all, "e", id(5), at(10));
    let left = ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"];
    assert_eq!(kernel.nets(), left);
    assert_eq!(blocks.pending(10, at(10)).len(), 1);
    let told = blocks.list(at(10));
    assert_eq!(told[1].cause, cause("remote"));
    assert_eq!(told[1].since, Some(SERVER));

    // Without a store all are this node's.
    let alone = Blocks::adopt(gate, false, at(10));
    assert_eq!(alone.numbers(), (3, 0));
    let fleet = alone.pass(net("192.0.2.7/32"), SEC, Scope::Fleet, cause(""), at(10));
    assert_eq!(fleet, Err(BlockError::NoStore));
}

#[test]
fn when_the_table_is_full_the_one_that_ends_first_gives_way() {
    let kernel = Arc::new(Kernel {
        flat: true,
        ..Kernel::default()
    });
    let gate: Arc<dyn Gate> = Arc::<Kernel>::clone(&kernel);
    let blocks = Blocks::adopt(gate, true, at(0));
    let address = |number: usize| {
        let number = u32::try_from(number).unwrap();
        IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(
            0x0a00_0000 + number,
        )))
    };
    for number in 0..MAX_BLOCKS {
        let length = 100 * SEC + u64::try_from(number).unwrap();
        blocks
            .pass(address(number), length, Scope::Node, cause(""), at(0))
            .unwrap();
    }
    let full = blocks.pass(net("192.0.2.1/32"), SEC, Scope::Node, cause(""), at(0));
    assert_eq!(full, Err(BlockError::Full { max: MAX_BLOCKS }));
    pass(&blocks, "192.0.2.1/32", 200, Scope::Node);
    assert_eq!(blocks.numbers().0, MAX_BLOCKS);
    assert_eq!(kernel.served.lock().unwrap().get(&address(0)), None);
    assert_eq!(blocks.counts().of(Event::GaveWay), 2);
    // One that is known already needs no room.
    blocks
        .pass(address(1), 300 * SEC, Scope::Node, cause(""), at(0))
        .unwrap();
    assert_eq!(blocks.counts().of(Event::GaveWay), 2);
}

#[test]
fn the_fleet_without_room_leaves_a_block_to_this_node() {
    let (kernel, blocks) = new();
    pass(&blocks, "192.0.2.1/32", 60, Scope::Fleet);
    let [Pending::Block { mark, .. }] = blocks.pending(1, at(0))[..] else {
        panic!("it is pending");
    };
    blocks.sent(net("192.0.2.1/32"), mark, None, &CLOCK);
    assert_eq!(kernel.of("192.0.2.1/32"), Some((60, Origin::Node)));
    assert_eq!(blocks.pending(1, at(0)), []);
    assert_eq!(blocks.numbers(), (1, 0));
}

/// Another server's clock may be behind: what it tells is later all the same.
#[test]
fn a_store_that_has_forgotten_is_heard_though_its_clock_is_behind() {
    let (kernel, blocks) = new();
    let one = net("192.0.2.1/32");
    let all = BTreeMap::from([(one, remote(60))]);
    resync(&blocks, &all, "e", id(1_000), at(0));
    resync(&blocks, &all, "another", id(5), at(1));
    blocks.lifted(one, &cause("enough"), id(6));
    assert!(kernel.nets().is_empty());
}

#[test]
fn many_changes_at_once_are_counted_and_not_noted_one_by_one() {
    let (kernel, blocks) = new();
    let block = |number: u8| (net(&format!("192.0.2.{number}/32")), remote(60));
    let all: BTreeMap<_, _> = (0..200).map(block).collect();
    resync(&blocks, &all, "e", id(1), at(0));
    assert_eq!(kernel.nets().len(), 200);
    assert_eq!(kernel.notes.lock().unwrap().len(), 64);
    assert_eq!(blocks.counts().of(Event::Blocked), 200);
    blocks.lifted(net("192.0.2.7/32"), &cause(""), id(2));
    assert_eq!(kernel.notes.lock().unwrap().len(), 65);
}
