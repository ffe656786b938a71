//! Write Holm functions in Rust.
//!
//! A function is a handler: it gets an [`Event`], and what it publishes, stores or records is staged and happens, all at
//! once, only if it returns ok. An instance lives for one event: keep nothing in statics, but in [`kv`].
//!
//! ```
//! use holm_function::prelude::*;
//!
//! #[derive(serde::Deserialize)]
//! struct Reading {
//!     celsius: f64,
//! }
//!
//! fn handle(event: Event) -> Result<Option<Payload>, Failure> {
//!     let reading: Reading = event.json()?;
//!     let limit: f64 = config::get("limit")?.unwrap_or(30.0);
//!     if reading.celsius > limit {
//!         publish_json("alerts/temperature", &serde_json::json!({ "celsius": reading.celsius }))?;
//!     }
//!     Ok(None)
//! }
//! holm_function::export!(handle);
//!
//! // A test needs no WebAssembly:
//! use holm_function::testing::TestHost;
//! let mut host = TestHost::new().with_config("limit", "25");
//! host.run(handle, Event::mqtt("sensors/a/temp", r#"{"celsius": 26.5}"#)).unwrap();
//! assert_eq!(host.publishes().len(), 1);
//! assert_eq!(host.publishes()[0].topic, "alerts/temperature");
//! ```

pub mod config;
mod error;
mod event;
pub mod functions;
pub mod gpio;
pub mod i2c;
pub mod json;
pub mod kv;
pub mod log;
mod publish;
pub mod random;
pub mod results;
pub mod secrets;
pub mod sensors;
pub mod spi;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod wasm;

#[cfg(not(target_family = "wasm"))]
use testing::backend;
#[cfg(target_family = "wasm")]
use wasm::backend;

pub use error::{Error, Failure};
pub use event::{Event, Payload};
pub use publish::{Publish, Qos, Route, publish, publish_json};
pub use serde_json;

/// What a handler needs.
pub mod prelude {
    pub use crate::log::{Level, log};
    pub use crate::{
        Error, Event, Failure, Payload, Publish, Qos, Route, config, debug, error, functions, gpio, info, kv, publish,
        publish_json, results, secrets, sensors, warn,
    };
}

/// Makes a handler the function's export: once per crate, at its root.
///
/// The handler is any `fn(Event) -> Result<Option<Payload>, Failure>`. Natively this expands to nothing, so that tests of
/// the same crate call the handler themselves.
#[macro_export]
macro_rules! export {
    ($handler:path) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Component;
            impl $crate::wasm::Guest for Component {
                fn handle(event: $crate::wasm::WireEvent) -> $crate::wasm::WireAnswer {
                    $crate::wasm::run(event, $handler)
                }
            }
    $crate::wasm::__export_holm!(Component with_types_in $crate::wasm);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn($crate::Event) -> Result<Option<$crate::Payload>, $crate::Failure> = $handler;
    };
}
