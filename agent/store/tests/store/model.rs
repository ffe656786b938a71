//! The store and its overlay against a map: whatever the order of reads, writes, commits, failures and restarts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use holm_core::{ReadSet, StateWrite};
use holm_store::{CommitError, OpenOptions, QueueError, Settlement, StateReader, Write};
use proptest::prelude::*;

use crate::{PATIENCE, Running, set};

#[derive(Debug, Clone)]
enum Step {
    /// An invocation begins (anew).
    Begin(usize),
    /// It reads a key.
    Read(usize, u8),
    /// It lists the keys.
    List(u8),
    /// It stages a write; `None` deletes.
    Stage(usize, u8, Option<u8>),
    /// It ends, and what it staged is queued.
    Settle(usize),
    /// A write without an invocation.
    Blind(u8, Option<u8>),
    /// Everything queued is committed.
    Flush,
    /// A commit fails, with these keys written in the same group or behind it.
    Fail(Vec<u8>),
    /// The node restarts.
    Reopen,
}

const INVOCATIONS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let (i, key, value) = (0..INVOCATIONS, 0..6_u8, proptest::option::weighted(0.8, any::<u8>()));
    prop_oneof![
        3 => i.clone().prop_map(Step::Begin),
        8 => (i.clone(), key.clone()).prop_map(|(i, key)| Step::Read(i, key)),
        1 => key.clone().prop_map(Step::List),
        6 => (i.clone(), key.clone(), value.clone()).prop_map(|(i, key, value)| Step::Stage(i, key, value)),
        5 => i.prop_map(Step::Settle),
        2 => (key.clone(), value).prop_map(|(key, value)| Step::Blind(key, value)),
        2 => Just(Step::Flush),
        1 => proptest::collection::vec(key, 0..3).prop_map(Step::Fail),
        1 => Just(Step::Reopen),
    ]
}

type Values = BTreeMap<u8, u8>;

#[derive(Default, Clone)]
struct Invocation {
    generation: u64,
    reads: ReadSet,
    /// The number of the last write of each key when it was read.
    seen: HashMap<u8, u64>,
    staged: BTreeMap<u8, Option<u8>>,
}

struct Queued {
    writes: BTreeMap<u8, Option<u8>>,
    outcome: Receiver<Result<(), CommitError>>,
}

struct World {
    options: OpenOptions,
    running: Option<Running>,
    reader: Option<StateReader>,
    invocations: Vec<Invocation>,
    committed: Values,
    /// `committed` and all that is queued.
    visible: Values,
    queued: Vec<Queued>,
    /// Counts the writes of each key.
    written: HashMap<u8, u64>,
}

fn key(key: u8) -> Arc<str> {
    format!("key-{key}").into()
}

fn apply(values: &mut Values, writes: &BTreeMap<u8, Option<u8>>) {
    for (key, value) in writes {
        match value {
            Some(value) => drop(values.insert(*key, *value)),
            None => drop(values.remove(key)),
        }
    }
}

impl World {
    fn new(options: OpenOptions) -> Self {
        let mut world = Self {
            options,
            running: None,
            reader: None,
            invocations: Vec::new(),
            committed: Values::new(),
            visible: Values::new(),
            queued: Vec::new(),
            written: HashMap::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let running = Running::with(&self.options).unwrap();
        assert_eq!(running.recovery, None);
        self.reader = Some(running.store.reader().unwrap());
        let begin = Invocation { generation: running.store.generation(), ..Invocation::default() };
        self.invocations = vec![begin; INVOCATIONS];
        self.running = Some(running);
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    fn read(&self, k: u8) -> (Option<u8>, u64) {
        let found = self.reader.as_ref().unwrap().get(&"f".into(), &key(k)).unwrap();
        (found.value.map(|bytes| bytes[0]), found.version)
    }

    fn queue(&mut self, writes: BTreeMap<u8, Option<u8>>, settlement: Settlement) -> Result<(), QueueError> {
        let rows = writes.iter().map(|(k, value)| {
            let value = value.map(|value| Bytes::from(vec![value; 40]));
            Write::State(StateWrite { namespace: "f".into(), key: key(*k), value })
        });
        let settlement = Settlement { writes: rows.collect(), ..settlement };
        let (sender, outcome) = std::sync::mpsc::channel();
        self.running().store.queue(settlement, move |result| drop(sender.send(result)))?;
        apply(&mut self.visible, &writes);
        for key in writes.keys() {
            *self.written.entry(*key).or_default() += 1;
        }
        self.queued.push(Queued { writes, outcome });
        Ok(())
    }

    /// Waits for every outcome; what failed has not happened.
    fn flush(&mut self) -> usize {
        let mut failed = 0;
        for queued in std::mem::take(&mut self.queued) {
            match queued.outcome.recv_timeout(PATIENCE).unwrap() {
                Ok(()) => apply(&mut self.committed, &queued.writes),
                Err(CommitError::DiskFull | CommitError::Discarded) => failed += 1,
                Err(other) => panic!("{other}"),
            }
        }
        self.visible.clone_from(&self.committed);
        failed
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin(i) => {
                let generation = self.running().store.generation();
                self.invocations[i] = Invocation { generation, ..Invocation::default() };
            }
            Step::Read(i, k) => {
                let (value, version) = self.read(k);
                assert_eq!(value, self.visible.get(&k).copied(), "key {k}");
                let written = self.written.get(&k).copied().unwrap_or_default();
                let invocation = &mut self.invocations[i];
                // The host asks the store once, and answers from its own notes afterwards.
                if invocation.seen.insert(k, written).is_none() {
                    invocation.reads.push(("f".into(), key(k), version));
                } else {
                    let seen = invocation.reads.iter_mut().find(|(_, name, _)| *name == key(k)).unwrap();
                    seen.2 = version;
                }
            }
            Step::List(after) => {
                let after = key(after);
                let listed = self.reader.as_ref().unwrap().keys("f", Some(&after), 2).unwrap();
                let expected: Vec<_> = self.visible.keys().map(|k| key(*k)).filter(|k| *k > after).take(2).collect();
                assert_eq!(listed, expected);
            }
            Step::Stage(i, k, value) => drop(self.invocations[i].staged.insert(k, value)),
            Step::Settle(i) => {
                let Invocation { generation, reads, seen, staged } = std::mem::take(&mut self.invocations[i]);
                let now = self.running().store.generation();
                let stale = generation != now;
                let conflict = seen.iter().any(|(k, n)| self.written.get(k).copied().unwrap_or_default() != *n);
                let settlement = Settlement { reads, generation: Some(generation), ..Settlement::default() };
                let expected = match (stale, conflict) {
                    (true, _) => Err(QueueError::Stale),
                    (false, true) => Err(QueueError::Conflict),
                    (false, false) => Ok(()),
                };
                assert_eq!(self.queue(staged, settlement), expected);
                self.invocations[i].generation = now;
            }
            Step::Blind(k, value) => self.queue(BTreeMap::from([(k, value)]), Settlement::default()).unwrap(),
            Step::Flush => assert_eq!(self.flush(), 0),
            Step::Fail(keys) => {
                self.flush();
                let generation = self.running().store.generation();
                let held = self.running().hold();
                let big = self.running().queue(crate::settlement(vec![set("big", vec![0; 2 << 20])]));
                for k in &keys {
                    self.queue(BTreeMap::from([(*k, Some(1))]), Settlement::default()).unwrap();
                }
                drop(held);
                assert_eq!(big.recv_timeout(PATIENCE).unwrap(), Err(CommitError::DiskFull));
                assert_eq!(self.flush(), keys.len());
                assert!(self.running().store.generation() > generation);
                self.running().await_told();
            }
            Step::Reopen => {
                self.reader = None;
                self.running.take().unwrap().close();
                self.flush();
                self.start();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn behaves_as_a_map_whatever_happens(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(OpenOptions { max_pages: Some(200), ..OpenOptions::new(folder.path()) });
        for one in steps {
            world.step(one);
        }
        world.step(Step::Reopen);
        for k in 0..6 {
            prop_assert_eq!(world.read(k).0, world.committed.get(&k).copied());
        }
        world.reader = None;
        world.running.take().unwrap().close();
    }
}
