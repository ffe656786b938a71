//! A manifest's permissions, resolved once at load into what each call is checked against.

use std::sync::Arc;
use std::time::Duration;

use holm_core::{FunctionName, Label, Manifest, TopicFilter, TopicName};

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
    sensors: Vec<Label>,
    /// Lines, and whether it may drive them.
    lines: Vec<(Label, bool)>,
    /// Buses, and the one address there; `None` is all.
    i2c: Vec<(Label, Option<u8>)>,
    spi: Vec<Label>,
    secrets: Vec<Label>,
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
            sensors: manifest.permissions.sensors.clone(),
            lines: manifest.permissions.gpio.clone(),
            i2c: manifest.permissions.i2c.clone(),
            spi: manifest.permissions.spi.clone(),
            secrets: manifest.permissions.secrets.clone(),
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

    /// The sensors it may read.
    pub(crate) fn sensors(&self) -> impl Iterator<Item = &str> {
        self.sensors.iter().map(Label::as_str)
    }

    /// Whether it may read a sensor.
    pub(crate) fn may_read(&self, sensor: &str) -> bool {
        self.sensors().any(|granted| granted == sensor)
    }

    /// Whether it may drive a line; `None` if it may not even look.
    pub(crate) fn line(&self, line: &str) -> Option<bool> {
        // A line may be granted both ways.
        let granted = self.lines.iter().filter(|(granted, _)| granted.as_str() == line);
        granted.map(|(_, drive)| *drive).max()
    }

    /// Whether it may speak to an address on a bus.
    pub(crate) fn may_speak(&self, bus: &str, address: u8) -> bool {
        let granted = |one: &Option<u8>| one.is_none_or(|one| one == address);
        self.i2c.iter().any(|(name, one)| name.as_str() == bus && granted(one))
    }

    /// Whether it may speak to an SPI device.
    pub(crate) fn may_speak_to(&self, device: &str) -> bool {
        self.spi.iter().any(|granted| granted.as_str() == device)
    }

    /// Whether it may read a secret.
    pub(crate) fn may_reveal(&self, secret: &str) -> bool {
        self.secrets.iter().any(|granted| granted.as_str() == secret)
    }

    /// The declared series of that name.
    pub(crate) fn series(&self, name: &str) -> Option<&Arc<str>> {
        self.series.iter().find(|series| ***series == *name)
    }
}
