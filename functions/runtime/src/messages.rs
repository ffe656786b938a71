//! holm:function's own interfaces: publish, results, invoke; and wasi:logging.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_core::{Enqueue, LogLevel, Payload, Publish, Qos, ResultRow, Route, TopicName};

use crate::bindings::holm::function::{invoke, publish, results, types};
use crate::bindings::wasi::logging::logging;
use crate::host::InvokeError;
use crate::recorder::Nature;
use crate::staging::Refused;
use crate::state::State;

fn payload(payload: types::Payload) -> Payload {
    Payload { content_type: payload.content_type.map(Arc::from), data: Bytes::from(payload.data) }
}

/// Why a text cannot be a property of an MQTT packet (MQTT 5.0, 1.5.4), if it cannot. A broker ends the connection of
/// whoever sends one, and would again with every attempt.
fn unfit(text: &str) -> Option<String> {
    if text.len() > usize::from(u16::MAX) {
        return Some(format!("a content type or user property of {} bytes, and MQTT has room for 65535", text.len()));
    }
    text.contains('\0')
        .then(|| "a content type or user property with a zero byte, which MQTT does not allow".to_owned())
}

/// Limits are at most 16 MiB, so that the conversion never saturates.
fn size(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

impl types::Host for State {}

impl publish::Host for State {
    fn publish(
        &mut self,
        topic: String,
        message: types::Payload,
        options: Option<publish::Options>,
    ) -> wasmtime::Result<Result<(), publish::Error>> {
        let topic = match TopicName::new(&topic) {
            Ok(topic) => topic,
            Err(error) => return Ok(Err(publish::Error::Other(error.to_string()))),
        };
        if !self.grants.may_publish(&topic) {
            let words = format!("the manifest grants no publish to `{topic}`");
            return Ok(Err(publish::Error::Denied(words)));
        }
        let options = options.unwrap_or(publish::Options {
            qos: publish::Qos::AtLeastOnce,
            retain: false,
            route: publish::Route::Local,
            expiry_seconds: None,
            user_properties: Vec::new(),
        });
        let texts = options.user_properties.iter().flat_map(|(name, value)| [name, value]).chain(&message.content_type);
        if let Some(problem) = texts.filter_map(|text| unfit(text)).next() {
            return Ok(Err(publish::Error::Other(problem)));
        }
        let staged = self.staging.publish(
            &self.grants,
            Publish {
                topic,
                payload: payload(message),
                qos: match options.qos {
                    publish::Qos::AtMostOnce => Qos::AtMostOnce,
                    publish::Qos::AtLeastOnce => Qos::AtLeastOnce,
                    publish::Qos::ExactlyOnce => Qos::ExactlyOnce,
                },
                retain: options.retain,
                route: match options.route {
                    publish::Route::Local => Route::Local,
                    publish::Route::Cloud => Route::Cloud,
                    publish::Route::Both => Route::Both,
                },
                expiry_seconds: options.expiry_seconds,
                user_properties: options
                    .user_properties
                    .into_iter()
                    .map(|(name, value)| (Arc::from(name), Arc::from(value)))
                    .collect(),
            },
        );
        Ok(staged.map_err(|refused| match refused {
            Refused::TooLarge(limit) => publish::Error::TooLarge(size(limit)),
            Refused::Full => publish::Error::QueueFull,
        }))
    }
}

impl State {
    fn record(&mut self, series: &str, json: Bytes) -> Result<(), results::Error> {
        let Some(series) = self.grants.series(series).cloned() else { return Err(results::Error::NoSuchSeries) };
        if let Some(secret) = self.staging.revealed.within(&json) {
            return Err(results::Error::Other(format!("it holds the secret `{secret}`")));
        }
        self.staging.result(&self.grants, ResultRow { series, json }).map_err(|refused| match refused {
            Refused::TooLarge(limit) => results::Error::TooLarge(size(limit)),
            Refused::Full => results::Error::QueueFull,
        })
    }
}

impl results::Host for State {
    fn record_value(&mut self, series: String, value: f64) -> wasmtime::Result<Result<(), results::Error>> {
        if !value.is_finite() {
            return Ok(Err(results::Error::Other("not a finite number".to_owned())));
        }
        Ok(self.record(&series, Bytes::from(value.to_string())))
    }

    fn record_json(&mut self, series: String, json: Vec<u8>) -> wasmtime::Result<Result<(), results::Error>> {
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&json) {
            return Ok(Err(results::Error::Other(error.to_string())));
        }
        Ok(self.record(&series, Bytes::from(json)))
    }
}

impl invoke::Host for State {
    fn invoke(
        &mut self,
        function: String,
        input: types::Payload,
    ) -> wasmtime::Result<Result<Option<types::Payload>, invoke::Error>> {
        let grants = self.grants.clone();
        let Some(function) = grants.invocable(&function) else { return Ok(Err(invoke::Error::Denied)) };
        let input = payload(input);
        let mut before = self.staging.hand_over(&grants);
        if self.recorder.is_replay() {
            self.handed.push(std::mem::take(&mut before));
        }
        let (content_type, data) = (input.content_type.clone(), input.data.clone());
        let asked = (function.as_str(), content_type, data);
        let answer = self.ask(Nature::World, "invoke.invoke", &asked, |host| {
            // The parts, because core types have no encoding of their own.
            host.invoke(function, input, before)
                .map(|answer| answer.map(|payload| (payload.content_type, payload.data)))
        })?;
        let wire = |(content_type, data): (Option<Arc<str>>, Bytes)| types::Payload {
            content_type: content_type.map(|text| text.to_string()),
            data: Vec::from(data),
        };
        Ok(answer.map(|answer| answer.map(wire)).map_err(|error| match error {
            InvokeError::NoSuchFunction => invoke::Error::NoSuchFunction,
            InvokeError::Denied => invoke::Error::Denied,
            InvokeError::DepthExceeded => invoke::Error::DepthExceeded,
            InvokeError::Timeout => invoke::Error::Timeout,
            InvokeError::Failed(reason) => invoke::Error::Failed(reason),
        }))
    }

    fn enqueue(
        &mut self,
        function: String,
        input: types::Payload,
        delay_ms: Option<u64>,
    ) -> wasmtime::Result<Result<String, invoke::Error>> {
        let Some(function) = self.grants.invocable(&function).cloned() else { return Ok(Err(invoke::Error::Denied)) };
        let id = self.ask(Nature::Plausible, "invoke.new-id", &(), |host| host.new_id())?;
        let delay = delay_ms.map(Duration::from_millis);
        let enqueue = Enqueue { id: id.clone(), function, input: payload(input), delay };
        Ok(match self.staging.enqueue(&self.grants, enqueue) {
            Ok(()) => Ok(id.to_string()),
            Err(Refused::TooLarge(limit)) => {
                Err(invoke::Error::Failed(format!("more than the {limit} bytes this function may send")))
            }
            Err(Refused::Full) => Err(invoke::Error::Failed("the output of this event is used up".to_owned())),
        })
    }
}

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, context: String, message: String) -> wasmtime::Result<()> {
        let level = match level {
            logging::Level::Trace => LogLevel::Trace,
            logging::Level::Debug => LogLevel::Debug,
            logging::Level::Info => LogLevel::Info,
            logging::Level::Warn => LogLevel::Warn,
            logging::Level::Error => LogLevel::Error,
            logging::Level::Critical => LogLevel::Critical,
        };
        self.staging.log(&self.grants, level, &context, &message);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_packet_can_carry_is_refused_when_it_is_published() {
        assert_eq!(unfit("application/json"), None);
        assert_eq!(unfit(&"x".repeat(65_535)), None);
        assert!(unfit(&"x".repeat(65_536)).is_some_and(|problem| problem.contains("65536 bytes")));
        assert!(unfit("a\0b").is_some());
    }
}
