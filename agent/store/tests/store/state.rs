//! Namespaces: their sizes, and what invocations may assume of what they read.

use std::sync::Arc;

use holm_store::{QueueError, Quota, Settlement, Write};

use crate::{PATIENCE, Running, set, settlement, unset};

fn limited(limit: u64, writes: Vec<Write>) -> Settlement {
    Settlement { quotas: vec![Quota::new("f".into(), limit)], ..settlement(writes) }
}

#[test]
fn a_namespace_keeps_within_its_quota() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let refused = |settlement: &Settlement| running.store.queue(settlement.clone(), |_| {}).err();
    assert_eq!(running.queue(limited(100, vec![set("a", vec![0; 99])])).recv_timeout(PATIENCE).unwrap(), Ok(()));
    let beyond = limited(100, vec![set("b", "")]);
    assert!(!running.store.fits(&beyond));
    assert_eq!(refused(&beyond), Some(QueueError::Quota { would_be: 101, limit: 100 }));
    let swap = limited(100, vec![unset("a"), set("b", vec![0; 99])]);
    assert!(running.store.fits(&swap));
    assert_eq!(refused(&swap), None);
    // Without a quota, and in another namespace, everything goes.
    assert_eq!(refused(&settlement(vec![set("c", vec![0; 500])])), None);
    // Above its limit already, a namespace may still shrink.
    assert_eq!(refused(&limited(10, vec![set("b", vec![0; 50])])), None);
    running.close();
}

#[test]
fn a_bound_that_is_too_high_is_corrected_by_counting() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    // A key whose characters are fewer than its bytes.
    let key = "ö".repeat(10);
    running.store.commit(vec![set(&key, vec![0; 60]), set("b", "1")]).unwrap();
    running.close();
    let running = Running::open(folder.path());
    // The size of what is replaced is not known without asking the database.
    let replace = limited(90, vec![set(&key, vec![1; 60])]);
    assert_eq!(running.store.queue(replace.clone(), |_| {}), Err(QueueError::Quota { would_be: 162, limit: 90 }));
    let reader = running.store.reader().unwrap();
    assert!(reader.get(&"f".into(), &key.as_str().into()).unwrap().value.is_some());
    running.store.recount(&"f".into(), &reader).unwrap();
    assert_eq!(running.store.queue(replace, |_| {}), Ok(()));
    let more = limited(90, vec![set("c", vec![0; 8])]);
    assert_eq!(running.store.queue(more, |_| {}), Err(QueueError::Quota { would_be: 91, limit: 90 }));
    running.store.recount(&"f".into(), &reader).unwrap();
    assert_eq!(running.store.queue(limited(90, vec![set("c", vec![0; 7])]), |_| {}), Ok(()));
    running.close();
}

#[test]
fn a_namespace_that_is_nearly_full_can_be_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    running.store.commit(vec![set("a", vec![0; 49]), set("b", vec![0; 49])]).unwrap();
    running.close();
    let running = Running::open(folder.path());
    let reader = running.store.reader().unwrap();
    let weighed = |mut settlement: Settlement| {
        running.store.weigh(&mut settlement, &reader).unwrap();
        running.store.queue(settlement, |_| {})
    };
    assert_eq!(weighed(limited(100, vec![set("a", vec![1; 49]), set("b", vec![1; 49])])), Ok(()));
    assert_eq!(weighed(limited(100, vec![set("c", "")])), Err(QueueError::Quota { would_be: 101, limit: 100 }));
    assert_eq!(
        weighed(limited(100, vec![set("b", vec![1; 50])])),
        Err(QueueError::Quota { would_be: 101, limit: 100 })
    );
    running.close();
}

#[test]
fn every_namespace_that_is_written_keeps_within_its_own_quota() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    let write = |namespace: &str, key: &str, bytes: usize| {
        Write::State(holm_core::StateWrite {
            namespace: namespace.into(),
            key: key.into(),
            value: Some(vec![0; bytes].into()),
        })
    };
    let quotas =
        || [("f", 100), ("child", 50), ("shared/site", 20)].map(|(name, limit)| Quota::new(name.into(), limit));
    let queue = |writes| {
        let settlement = Settlement { quotas: quotas().into(), ..settlement(writes) };
        assert_eq!(running.store.fits(&settlement), running.store.queue(settlement.clone(), |_| {}).is_ok());
        // The answer of a second try: the first may have been taken.
        running.store.queue(settlement, |_| {})
    };
    let over = |would_be, limit| Err(QueueError::Quota { would_be, limit });
    assert_eq!(queue(vec![write("f", "a", 90), write("child", "a", 40), write("shared/site", "a", 10)]), Ok(()));
    // One that is over refuses all, and nothing is charged to the others.
    assert_eq!(queue(vec![write("f", "b", 8), write("child", "b", 8), write("shared/site", "b", 9)]), over(21, 20));
    assert_eq!(queue(vec![write("f", "b", 8), write("child", "b", 9)]), over(51, 50));
    assert_eq!(queue(vec![write("f", "b", 8), write("child", "b", 8), write("shared/site", "b", 8)]), Ok(()));
    assert_eq!(queue(vec![write("f", "c", 0)]), over(101, 100));
    running.close();

    // The sizes of what is replaced are found for each.
    let running = Running::open(folder.path());
    let reader = running.store.reader().unwrap();
    let anew = vec![write("f", "a", 90), write("child", "a", 40), write("shared/site", "a", 10)];
    let mut anew = Settlement { quotas: quotas().into(), ..settlement(anew) };
    assert!(!running.store.fits(&anew));
    running.store.weigh(&mut anew, &reader).unwrap();
    assert_eq!(running.store.queue(anew, |_| {}), Ok(()));
    running.close();
}

#[test]
fn recounting_sees_what_is_queued_and_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    running.store.commit(vec![set("a", vec![0; 49]), set("b", vec![0; 49])]).unwrap();
    let held = running.hold();
    running.queue(settlement(vec![unset("a"), set("c", vec![0; 9])]));
    running.store.recount(&"f".into(), &running.store.reader().unwrap()).unwrap();
    let more = limited(70, vec![set("d", vec![0; 10])]);
    assert_eq!(running.store.queue(more, |_| {}), Err(QueueError::Quota { would_be: 71, limit: 70 }));
    drop(held);
    running.close();
}

#[test]
fn an_increment_is_never_lost_between_threads() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    const EACH: u32 = 150;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let reader = running.store.reader().unwrap();
                let (namespace, key): (Arc<str>, Arc<str>) = ("f".into(), "n".into());
                let mut done = 0;
                while done < EACH {
                    let generation = Some(running.store.generation());
                    let seen = reader.get(&namespace, &key).unwrap();
                    let n: u32 = seen.value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap());
                    let reads = vec![(namespace.clone(), key.clone(), seen.version)];
                    let next = Settlement { reads, generation, ..settlement(vec![set("n", (n + 1).to_string())]) };
                    match running.store.queue_blocking(next, |result| result.unwrap()) {
                        Ok(_) => done += 1,
                        Err(QueueError::Conflict) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    running.close();
    let running = Running::open(folder.path());
    assert_eq!(crate::value(&running.store, "n"), Some((4 * EACH).to_string()));
    running.close();
}

#[test]
fn reading_much_does_not_turn_away_those_who_read_before() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::open(folder.path());
    for n in 0..100 {
        running.store.commit(vec![set(&format!("big{n}"), vec![0; 8192]), set(&format!("small{n}"), "v")]).unwrap();
    }
    running.close();
    let running = Running::open(folder.path());
    let (reader, namespace): (_, Arc<str>) = (running.store.reader().unwrap(), "f".into());
    let first: Arc<str> = "small1".into();
    let reads = vec![(namespace.clone(), first.clone(), reader.get(&namespace, &first).unwrap().version)];
    running.store.commit(vec![]).unwrap();
    // More than the cache holds.
    for n in 0..100 {
        reader.get(&namespace, &format!("big{n}").into()).unwrap();
    }
    let late = Settlement { reads, ..settlement(vec![set("result", "v")]) };
    assert_eq!(running.store.queue(late, |_| {}), Ok(()));
    running.close();
}
