//! A manifest's permissions, resolved once at load into what each call is checked against.

use std::sync::Arc;
use std::time::Duration;

use holm_core::{FunctionName, Manifest, TopicFilter, TopicName};

use crate::RuntimeError;

/// A key-value namespace that a function was granted.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// The name the store knows: the function's own, or `shared/...`.
    pub(crate) name: Arc<str>,
    /// Whether it may write.
    pub(crate) writable: bool,
}

/// What a function may do and use.
#[derive(Debug)]
pub(crate) struct Grants {
    publish: Vec<TopicFilter>,
    /// A bucket's handle is its index here.
    namespaces: Vec<Namespace>,
    invoke: Vec<FunctionName>,
    series: Vec<Arc<str>>,
    /// Wall time of a call.
    pub(crate) timeout: Duration,
    /// Bytes of linear memory.
    pub(crate) memory: usize,
    /// Bytes staged to leave.
    pub(crate) output: u64,
    /// Bytes of staged state.
    pub(crate) kv: u64,
    /// Bytes of log.
    pub(crate) log: u64,
}

impl Grants {
    /// Resolves a manifest for `device`.
    pub(crate) fn new(manifest: &Manifest, device: &str) -> Result<Self, RuntimeError> {
        let fill = |filter: &TopicFilter| {
            let text = filter.as_str().replace("{device}", device).replace("{function}", manifest.name.as_str());
            TopicFilter::new(&text).map_err(|_| RuntimeError::BadGrant { filter: text })
        };
        let own = manifest.name.shared();
        let namespaces = manifest.permissions.kv.iter().map(|(name, writable)| Namespace {
            name: if &**name == "self" { own.clone() } else { name.clone() },
            writable: *writable,
        });
        Ok(Self {
            publish: manifest.permissions.publish.iter().map(fill).collect::<Result<_, _>>()?,
            namespaces: namespaces.collect(),
            invoke: manifest.permissions.invoke.clone(),
            series: manifest.results.iter().map(|(name, _)| name.clone()).collect(),
            timeout: manifest.limits.timeout,
            memory: usize::try_from(manifest.limits.memory).unwrap_or(usize::MAX),
            output: manifest.limits.output,
            kv: manifest.limits.kv,
            log: manifest.limits.log,
        })
    }

    /// Whether it may publish to `topic`.
    pub(crate) fn may_publish(&self, topic: &TopicName) -> bool {
        self.publish.iter().any(|filter| filter.matches(topic))
    }

    /// The handle of a namespace by the name a guest knows it by.
    pub(crate) fn open(&self, identifier: &str) -> Option<u32> {
        let own = matches!(identifier, "" | "self" | "default");
        let found = self.namespaces.iter().position(|namespace| {
            // A shared namespace has a slash in its name; a function's own has none.
            if own { !namespace.name.contains('/') } else { *namespace.name == *identifier }
        });
        found.and_then(|index| u32::try_from(index).ok())
    }

    /// The namespace behind a handle.
    pub(crate) fn namespace(&self, handle: u32) -> Option<&Namespace> {
        self.namespaces.get(usize::try_from(handle).ok()?)
    }

    /// The function it may invoke by that name.
    pub(crate) fn invocable(&self, name: &str) -> Option<&FunctionName> {
        self.invoke.iter().find(|granted| granted.as_str() == name)
    }

    /// The declared series of that name.
    pub(crate) fn series(&self, name: &str) -> Option<&Arc<str>> {
        self.series.iter().find(|series| ***series == *name)
    }
}
