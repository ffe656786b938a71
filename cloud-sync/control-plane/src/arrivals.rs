//! Wakes those who watch a device when something of it is stored. What that is, they read themselves: a wake-up carries no data,
//! so one that is late or comes twice does no harm, and nothing queues up for who is slow.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Watchers at once. Each is a connection that somebody looks at, and each wake-up costs it a look into the database.
const MAX_WATCHERS: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    devices: Mutex<HashMap<String, watch::Sender<()>>>,
    /// Watchers, so that the usual case, nobody, costs no lock.
    watchers: AtomicUsize,
}

/// Somebody who watches a device, or none in particular. Counts until it is dropped.
pub(crate) struct Watcher {
    arrivals: Arc<Arrivals>,
    device: Option<(String, watch::Receiver<()>)>,
}

impl Arrivals {
    /// Something of a device is stored, or it came or went. For any thread; does not wait.
    pub(crate) fn came(&self, thing: &str) {
        if self.watchers.load(Ordering::Acquire) > 0
            && let Some(device) = self.lock().get(thing)
        {
            device.send_replace(());
        }
    }

    /// Begins to watch; `None` if too many do.
    pub(crate) fn watch(self: &Arc<Self>, thing: Option<&str>) -> Option<Watcher> {
        if self.watchers.fetch_add(1, Ordering::AcqRel) >= MAX_WATCHERS {
            self.watchers.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        let device = thing.map(|thing| {
            let mut devices = self.lock();
            let sender = devices.entry(thing.to_owned()).or_insert_with(|| watch::Sender::new(()));
            (thing.to_owned(), sender.subscribe())
        });
        Some(Watcher { arrivals: self.clone(), device })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Waits until something has come since it was called last. Cancel safe. Never ends where no device is watched.
    pub(crate) async fn changed(&mut self) {
        if let Some((_, device)) = &mut self.device
            && device.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.arrivals.watchers.fetch_sub(1, Ordering::AcqRel);
        let Some((thing, device)) = self.device.take() else { return };
        drop(device);
        if let Entry::Occupied(entry) = self.arrivals.lock().entry(thing)
            && entry.get().receiver_count() == 0
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_watches_is_woken_and_leaves_nothing_behind() {
        let arrivals = Arc::new(Arrivals::default());
        let mut watcher = arrivals.watch(Some("pi1")).unwrap();
        let other = arrivals.watch(Some("pi2")).unwrap();
        // Whoever comes before the wait is not missed.
        arrivals.came("pi1");
        arrivals.came("pi1");
        watcher.changed().await;
        arrivals.came("pi3");
        drop((watcher, other));
        assert!(arrivals.lock().is_empty());
        assert_eq!(arrivals.watchers.load(Ordering::Acquire), 0);
    }

    #[test]
    fn watchers_have_a_bound() {
        let arrivals = Arc::new(Arrivals::default());
        let watchers: Vec<Watcher> = (0..MAX_WATCHERS).map(|_| arrivals.watch(None).unwrap()).collect();
        assert!(arrivals.watch(Some("pi1")).is_none());
        drop(watchers);
        assert!(arrivals.watch(Some("pi1")).is_some());
    }
}
